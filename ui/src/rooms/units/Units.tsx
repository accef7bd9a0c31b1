import { Button, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Cpu, Search, Unplug } from "lucide-react";
import { useState } from "react";
import { Link } from "wouter";
import { units } from "~/api/queries";
import type { Unit } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card, Head } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { count } from "~/parts/time";
import { Share } from "./Share";
import css from "./units.module.css";

const PAGE = 200;
const MOST = 1000;
const MOVING = ["waiting_for_unit", "downloading", "pending", "installing", "waiting_for_active"];

const VIEWS: { id: string; name: string; tone?: string; holds: (unit: Unit) => boolean }[] = [
  { id: "all", name: "All", holds: () => true },
  { id: "online", name: "Online", tone: "good", holds: (unit) => unit.online_status === "Online" },
  { id: "updating", name: "Updating", tone: "busy", holds: (unit) => MOVING.includes(unit.update_phase) },
  {
    id: "failed",
    name: "Failed",
    tone: "bad",
    holds: (unit) => unit.update_phase === "failed" || unit.counts.instances_failed > 0,
  },
  { id: "offline", name: "Offline", tone: "idle", holds: (unit) => unit.online_status === "Offline" },
];

const COLUMNS: Column<Unit>[] = [
  {
    head: "Unit",
    cell: (unit) => (
      <Named name={unit.title || unit.system_uid} sub={unit.title ? unit.system_uid : undefined} />
    ),
  },
  {
    head: "Link",
    cell: (unit) => (unit.status === "new" ? <Mark state="new" /> : <Mark state={unit.online_status} />),
  },
  { head: "Update", cell: (unit) => <Mark state={unit.update_phase} soft={unit.update_phase !== "none"} /> },
  {
    head: "Instances",
    cell: (unit) => <Share counts={unit.counts} />,
    bare: (unit) => Math.max(unit.counts.instances_desired, unit.counts.instances) === 0,
  },
  {
    head: "Nodes",
    number: true,
    minor: true,
    cell: (unit) =>
      unit.counts.nodes_connected < unit.counts.nodes
        ? `${unit.counts.nodes_connected} of ${unit.counts.nodes}`
        : unit.counts.nodes,
  },
  {
    head: "Model",
    minor: true,
    cell: (unit) => (unit.unit_model ? `${unit.unit_model.name} ${unit.unit_model.version}` : "—"),
  },
  {
    head: "Last heard",
    number: true,
    bare: (unit) => unit.online_status !== "Offline",
    cell: (unit) => (unit.online_status === "Offline" ? <Ago at={unit.last_seen_at} /> : "now"),
  },
];

/** All Units and how they are, live. */
export default function Units() {
  const [text, setText] = useState("");
  const [search] = useDebouncedValue(text.trim(), 160);
  const [view, setView] = useState("all");
  const [limit, setLimit] = useState(PAGE);
  const read = useQuery(units({ search, limit }));
  const all = read.data?.items ?? [];
  const chosen = VIEWS.find((each) => each.id === view) ?? VIEWS[0];
  const rows = all.filter((unit) => chosen?.holds(unit));
  const more = (read.data?.total ?? 0) - all.length;
  const none = read.data?.total === 0 && search === "";
  return (
    <>
      <Head title="Units" page="Units" under={read.data && <span>{count(read.data.total, "Unit")}</span>}>
        <Button component={Link} href="/claim-codes?new" variant={none ? "filled" : "default"}>
          Add a Unit
        </Button>
      </Head>
      {!none && (
        <div className={css.tools}>
          <fieldset className={css.views} aria-label="Show">
            {VIEWS.map((each) => (
              <button
                key={each.id}
                type="button"
                aria-pressed={view === each.id}
                data-tone={each.tone}
                onClick={() => setView(each.id)}
              >
                {each.name}
                <b>{all.filter(each.holds).length}</b>
              </button>
            ))}
          </fieldset>
          <TextInput
            type="search"
            aria-label="Find Units by name or system id"
            placeholder="Name or system id"
            leftSection={<Search size={14} aria-hidden />}
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            className={css.find}
          />
        </div>
      )}
      <Card>
        {read.error && (
          <div style={{ padding: 16 }}>
            <Trouble error={read.error} doing="Units could not be read" retry={() => void read.refetch()} />
          </div>
        )}
        {read.isPending && <Loading />}
        {none && (
          <Empty
            icon={Cpu}
            title="No Unit has joined yet"
            command="sudo aos unit join --cloud https://<this cloud> --code <claim code>"
            action={
              <Button component={Link} href="/claim-codes?new">
                Make a claim code
              </Button>
            }
          >
            Make a claim code: it shows the whole command to type on the main Node of the Unit. The Unit calls
            out to this cloud; nothing has to reach it.
          </Empty>
        )}
        {read.data && !none && rows.length === 0 && (
          <Empty icon={Unplug} title="No Unit to show" small>
            {search !== "" ? `Nothing is called “${search}”.` : `No Unit is in “${chosen?.name}” now.`}
          </Empty>
        )}
        {rows.length > 0 && (
          <Table
            label="Units"
            columns={COLUMNS}
            rows={rows}
            name={(unit) => unit.id}
            to={(unit) => `/units/${unit.id}`}
            mark={(unit) => ({ "data-unit": unit.system_uid })}
          />
        )}
      </Card>
      {more > 0 && (
        <p className={css.more}>
          {count(more, "more Unit")}.{" "}
          {limit < MOST ? (
            <Button variant="subtle" size="compact-sm" onClick={() => setLimit(MOST)}>
              Show up to {MOST}
            </Button>
          ) : (
            "Search to narrow the list."
          )}
        </p>
      )}
    </>
  );
}
