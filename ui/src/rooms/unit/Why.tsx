import { Drawer } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Check, Hourglass, Minus, X } from "lucide-react";
import { explain, unitWhy } from "~/api/queries";
import type { InstanceWhy, RuleOutcome } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Command, Loading, Prose, Trouble } from "~/parts/small";
import css from "./unit.module.css";

const RULES: Record<string, string> = {
  unit_provisioned: "The Unit is provisioned",
  service_exists: "The service exists",
  version_ready: "A version is ready",
  assigned: "It is assigned to the Unit",
  platform_fits: "A platform of it fits a Node",
  labels_fit: "A Node has its labels",
  in_desired_state: "It is in the desired state",
  unit_linked: "The Unit is linked",
  acknowledged: "The Unit acknowledged the desired state",
  installed: "It is installed",
  running: "Its instances run",
};
const ICONS: Record<RuleOutcome, typeof Check> = {
  pass: Check,
  fail: X,
  waiting: Hourglass,
  not_checked: Minus,
};
const HEARD: Record<RuleOutcome, string> = {
  pass: "holds",
  fail: "does not hold",
  waiting: "on its way",
  not_checked: "not looked at",
};

/** What holds instances up, and which Nodes are excluded by which rule. */
function Placement({ instances }: { instances: InstanceWhy[] }) {
  if (instances.length === 0) return null;
  return (
    <section className={css.placement} aria-label="Instances that are held up">
      {instances.slice(0, 8).map((each) => (
        <div key={`${each.subject.id}/${each.instance_id}`} data-held={each.instance_id}>
          <h3>
            Instance {each.instance_id} for {each.subject.label}
          </h3>
          <p>{each.waits_for}</p>
          {each.placement && each.placement !== each.waits_for && (
            <p>The Unit's scheduler: {each.placement}</p>
          )}
          <ul>
            {each.nodes.map((node) => (
              <li key={node.node_id} data-excluded={node.excluded_by ?? undefined}>
                <b>{node.node_id}</b>
                {node.excluded_by && <em>{node.excluded_by}</em>}
                <span>
                  {node.text}
                  {node.said_by_unit && " (the Unit's scheduler)"}
                </span>
              </li>
            ))}
          </ul>
        </div>
      ))}
      {instances.length > 8 && <p>and {instances.length - 8} more</p>}
    </section>
  );
}

/** Why a service is, or is not, as desired on a Unit: every rule from assignment to running, live. */
export function Why({ unit, service, close }: { unit: string; service: string | null; close: () => void }) {
  const read = useQuery({ ...explain(unit, service ?? ""), enabled: service !== null });
  const told = read.data;
  const where = useQuery({ ...unitWhy(unit), enabled: service !== null });
  const held = (where.data?.instances ?? []).filter(
    (each) => (each.waits_for || each.placement) && each.service.id === told?.service.id,
  );
  return (
    <Drawer
      opened={service !== null}
      onClose={close}
      size={460}
      title={told ? `Why is ${told.service.title || told.service.codename} as it is?` : "Why?"}
    >
      {read.error && <Trouble error={read.error} doing="No explanation" retry={() => void read.refetch()} />}
      {read.isPending && service !== null && <Loading />}
      {told && (
        <>
          <div className={css.summary}>
            <Mark
              state="summary"
              tone={
                told.as_desired ? "good" : told.rules.some((rule) => rule.outcome === "fail") ? "bad" : "busy"
              }
              word={told.as_desired ? "As desired" : "Not as desired"}
            />
            <p>
              <Prose text={told.summary} />
            </p>
          </div>
          <ol className={css.rules}>
            {told.rules.map((rule) => {
              const Icon = ICONS[rule.outcome] ?? Minus;
              return (
                <li key={rule.rule} data-outcome={rule.outcome}>
                  <span className={css.outcome}>
                    <Icon size={13} strokeWidth={2.6} aria-hidden />
                  </span>
                  <div>
                    <b>
                      {RULES[rule.rule] ?? rule.rule}
                      <span className="only-heard">: {HEARD[rule.outcome]}</span>
                    </b>
                    {rule.text && rule.outcome !== "not_checked" && (
                      <p>
                        <Prose text={rule.text} />
                      </p>
                    )}
                    {rule.hint && (rule.outcome === "fail" || rule.outcome === "waiting") && (
                      <p className={css.hint}>
                        <Prose text={rule.hint} />
                      </p>
                    )}
                  </div>
                </li>
              );
            })}
          </ol>
          <Placement instances={held} />
          <p className={css.same}>The same on the command line:</p>
          <Command text={`aos explain ${told.system_uid} ${told.service.codename}`} />
        </>
      )}
    </Drawer>
  );
}
