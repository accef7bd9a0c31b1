import { ActionIcon, Tooltip } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQueryClient } from "@tanstack/react-query";
import { Network, Pause as PauseIcon, Play } from "lucide-react";
import type { ReactNode } from "react";
import { patch, path } from "~/api/client";
import type { Node, Unit, UnitSubjectService, WantedNodeState } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Mark, Shape } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Chips, Empty, Facts, Ident } from "~/parts/small";
import { bytes, count } from "~/parts/time";
import { say } from "~/parts/tone";
import { why } from "./phase";
import css from "./unit.module.css";

function platform(node: Node): string {
  const cpu = node.cpus[0];
  const cores = node.cpus.reduce((sum, each) => sum + each.total_num_cores, 0);
  const arch = cpu ? `${cpu.architecture}${cpu.variant ? `/${cpu.variant}` : ""}` : "";
  return [node.os, arch, cores > 0 ? count(cores, "core") : ""].filter((part) => part !== "").join(", ");
}

function Placed({ node, services }: { node: Node; services: UnitSubjectService[] }) {
  const here = services.flatMap((entry) =>
    entry.instances
      .filter((instance) => instance.node_id === node.node_id)
      .map((instance) => ({ entry, instance, tone: say(instance.run_state).tone })),
  );
  if (here.length === 0) return <span className={css.faint}>no instance</span>;
  const named = here.length <= 12;
  return (
    <span className={css.placed}>
      {here.map(({ entry, instance, tone }) => {
        const name = `${entry.service.codename} #${instance.instance_id}`;
        return (
          <span key={`${entry.subject.id}/${name}`} title={`${name}: ${instance.run_state}`}>
            <Shape tone={tone} size={9} />
            {named && <span>{name}</span>}
          </span>
        );
      })}
      {!named && <span>{count(here.length, "instance")}</span>}
    </span>
  );
}

/** Free attributes of a Node, without those that are shown as something else. */
function attributes(node: Node): string[] {
  const shown = Object.entries(node.attrs).filter(
    ([name]) => !["MainNode", "AosComponents", "AosBlobTransfer"].includes(name),
  );
  return shown.map(([name, value]) => (value === "" ? name : `${name}: ${value}`));
}

/** What was ordered, while the Node is not so yet. */
function Wanted({ node }: { node: Node }) {
  if (node.wanted_state === "paused" && node.state !== "paused")
    return <p className={css.wanted}>Ordered to pause; the Unit has not reported it paused yet.</p>;
  if (node.wanted_state === "provisioned" && node.state === "paused")
    return <p className={css.wanted}>Ordered to take part again; the Unit still reports it paused.</p>;
  return null;
}

function Pause({ unit, node }: { unit: Unit; node: Node }) {
  const client = useQueryClient();
  const [asking, ask] = useDisclosure(false);
  const paused = node.wanted_state === "paused" || (!node.wanted_state && node.state === "paused");
  const order = (wanted_state: WantedNodeState) =>
    patch<Node>(path`/units/${unit.id}/nodes/${node.node_id}/`, { wanted_state });
  const done = () => void client.invalidateQueries({ queryKey: ["unit", unit.id] });
  const name = node.title || node.node_id;
  return (
    <>
      <Tooltip label={paused ? "Let it take part again" : "Pause the Node"}>
        <ActionIcon
          variant="default"
          size="md"
          onClick={ask.open}
          aria-label={paused ? `Resume Node ${name}` : `Pause Node ${name}`}
        >
          {paused ? <Play size={14} aria-hidden /> : <PauseIcon size={14} aria-hidden />}
        </ActionIcon>
      </Tooltip>
      <Confirm
        opened={asking}
        close={ask.close}
        title={paused ? `Let ${name} take part again?` : `Pause ${name}?`}
        button={paused ? "Resume the Node" : "Pause the Node"}
        colour={paused ? undefined : "red"}
        act={() => order(paused ? "provisioned" : "paused")}
        done={done}
      >
        {paused
          ? "The Unit may place instances on it again."
          : "Its instances are stopped; the Unit places them on other Nodes where it can. The Node stays linked."}
      </Confirm>
    </>
  );
}

/** The Nodes of a Unit, as the Unit reports them, with what is placed on each. */
export function Nodes(properties: { unit: Unit; nodes: Node[]; services: UnitSubjectService[] }) {
  const { unit, nodes, services } = properties;
  if (nodes.length === 0) {
    return (
      <Card title="Nodes">
        <Empty icon={Network} title="No Node is known yet" small>
          The Unit reports its Nodes with its first status, as soon as it is linked.
        </Empty>
      </Card>
    );
  }
  return (
    <Card title="Nodes" note={count(nodes.length, "Node")}>
      <ul className={css.nodes}>
        {nodes.map((node) => (
          <li key={node.node_id} data-node={node.node_id}>
            <div className={css.nodeHead}>
              <b>{node.title || node.node_id}</b>
              <span className={css.role}>{node.is_main ? "main" : "secondary"}</span>
              <span className={css.nodeState}>
                <Mark
                  state={node.is_connected ? node.state : "Offline"}
                  word={node.is_connected ? undefined : "Not linked"}
                />
                <Pause unit={unit} node={node} />
              </span>
            </div>
            <Wanted node={node} />
            {node.attrs.AosBlobTransfer === "plain-http" && (
              <p className={css.wanted}>
                It is served its images over plain HTTP, without encryption on the way (legacy_blobs).
              </p>
            )}
            {node.error && <p className={css.nodeError}>{why(node.error)}</p>}
            <Facts
              of={[
                ...(node.title && node.title !== node.node_id
                  ? [["Node id", <Ident key="id" id={node.node_id} what="Node id" />] as [string, ReactNode]]
                  : []),
                ["Group", node.node_type],
                ["Platform", platform(node)],
                [
                  "Capacity",
                  [
                    node.max_dmips > 0 ? `${node.max_dmips.toLocaleString("en")} DMIPS` : "",
                    node.total_ram > 0 ? bytes(node.total_ram) : "",
                  ]
                    .filter((part) => part !== "")
                    .join(", ") || "not reported",
                ],
                ["Labels", <Chips key="labels" of={node.labels} />],
                [
                  "Runtimes",
                  <Chips key="runtimes" of={node.runtimes.map((each) => each.runtime_type || each.id)} />,
                ],
                ["Attributes", <Chips key="attributes" of={attributes(node)} />],
                ["Instances", <Placed key="placed" node={node} services={services} />],
              ]}
            />
          </li>
        ))}
      </ul>
    </Card>
  );
}
