import { Button, Select, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { BellOff, Search } from "lucide-react";
import { useState } from "react";
import { Link } from "wouter";
import { alerts } from "~/api/queries";
import type { Alert } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Table } from "~/parts/Table";
import { length } from "~/parts/time";

const PAGE = 100;
const MOST = 1000;

const KINDS: Record<string, string> = {
  systemQuotaAlert: "Node uses too much",
  instanceQuotaAlert: "Instance uses too much",
  updateItemInstanceAlert: "Instance",
  deviceAllocateAlert: "Resource not given",
  coreAlert: "Component",
  systemAlert: "Machine log",
  downloadProgressAlert: "Download",
};

const STATES: Record<string, string> = { active: "Goes on", ended: "Over", once: "Of one moment" };

function State({ alert }: { alert: Alert }) {
  if (alert.state === "active") return <Mark state="alert" tone="bad" word="Goes on" soft />;
  if (alert.state === "ended") {
    const lasted = (Date.parse(alert.ended_at ?? alert.last_at) - Date.parse(alert.at)) / 1000;
    return <Mark state="over" tone="idle" word={`Over, lasted ${length(lasted)}`} />;
  }
  const often = alert.count > 1 ? `, ${alert.count} times` : "";
  return alert.severity === "error" ? (
    <Mark state="error" tone="bad" word={`Error${often}`} />
  ) : (
    <Mark state="warning" tone="warn" word={`Warning${often}`} />
  );
}

function About({ alert }: { alert: Alert }) {
  if (alert.service)
    return (
      <>
        {alert.service.title || alert.service.codename} #{alert.instance_id}
      </>
    );
  return alert.node_id ? <>Node {alert.node_id}</> : <>the Unit</>;
}

const columns = (fleet: boolean): Column<Alert>[] => [
  { head: "State", cell: (alert) => <State alert={alert} /> },
  ...(fleet
    ? [
        {
          head: "Unit",
          cell: (alert: Alert) => (
            <Link href={`/units/${alert.unit_id}/alerts`}>{alert.unit_title || alert.system_uid}</Link>
          ),
        },
      ]
    : []),
  { head: "About", cell: (alert) => <About alert={alert} /> },
  { head: "What", cell: (alert) => <span style={{ overflowWrap: "anywhere" }}>{alert.text}</span> },
  { head: "Kind", minor: true, cell: (alert) => KINDS[alert.tag] ?? alert.tag },
  { head: "Last told", number: true, cell: (alert) => <Ago at={alert.last_at} /> },
];

/** Alerts of one Unit, or of all, live and narrowed as one likes. */
export function AlertList({ unit }: { unit?: string }) {
  const [text, setText] = useState("");
  const [search] = useDebouncedValue(text.trim(), 160);
  const [state, setState] = useState<string | null>(null);
  const [tag, setTag] = useState<string | null>(null);
  const [limit, setLimit] = useState(PAGE);
  const read = useQuery(alerts(unit, { search, limit, state: state ?? undefined, tag: tag ?? undefined }));
  const rows = read.data?.items ?? [];
  const narrowed = search !== "" || state !== null || tag !== null;
  return (
    <Card
      title="Alerts"
      note={read.data && `${rows.filter((alert) => alert.state === "active").length} go on`}
      actions={
        <div style={{ display: "flex", flexWrap: "wrap", gap: 8 }}>
          <Select
            size="xs"
            aria-label="Which state"
            placeholder="Any state"
            clearable
            data={Object.entries(STATES).map(([value, label]) => ({ value, label }))}
            value={state}
            onChange={setState}
            w={130}
          />
          <Select
            size="xs"
            aria-label="Which kind"
            placeholder="Any kind"
            clearable
            data={Object.entries(KINDS).map(([value, label]) => ({ value, label }))}
            value={tag}
            onChange={setTag}
            w={190}
          />
          <TextInput
            type="search"
            size="xs"
            aria-label="Find in alerts"
            placeholder="Text"
            leftSection={<Search size={13} aria-hidden />}
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
          />
        </div>
      }
    >
      {read.isPending && <Loading />}
      {read.error && (
        <div style={{ padding: 16 }}>
          <Trouble error={read.error} doing="Alerts could not be read" retry={() => void read.refetch()} />
        </div>
      )}
      {read.data && rows.length === 0 && (
        <Empty icon={BellOff} title={narrowed ? "Nothing to show" : "No alerts"} small>
          {narrowed
            ? "No alert is so. Take a filter away."
            : "What uses too much, fails or complains is told here. Rules stand in the unit configuration and in the items."}
        </Empty>
      )}
      {rows.length > 0 && (
        <Table
          label="Alerts"
          columns={columns(unit === undefined)}
          rows={rows}
          name={(alert) => String(alert.id)}
          mark={(alert) => ({
            "data-alert": alert.tag,
            "data-alert-state": alert.state,
            "data-parameter": alert.parameter ?? "",
          })}
        />
      )}
      {read.data && read.data.total > rows.length && limit < MOST && (
        <div style={{ padding: 12, textAlign: "center" }}>
          <Button
            variant="default"
            loading={read.isFetching}
            onClick={() => setLimit(Math.min(MOST, limit + 2 * PAGE))}
          >
            Show older
          </Button>
        </div>
      )}
    </Card>
  );
}
