import { Button, SegmentedControl } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Activity } from "lucide-react";
import { useState } from "react";
import { monitoring } from "~/api/queries";
import type { Alert, InstanceUsage, NodeUsage, UnitMonitoring, UsageLimit, UsagePoint } from "~/api/types";
import { Chart, type Level, type Span } from "~/parts/Chart";
import { HOLDS_MS, rates, type Spot } from "~/parts/chart";
import { Card } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { bytes, useNow } from "~/parts/time";
import css from "./monitoring.module.css";

const SPANS = [
  { value: "15", label: "15 min" },
  { value: "60", label: "1 h" },
  { value: "360", label: "6 h" },
  { value: "1440", label: "1 day" },
  { value: "10080", label: "7 days" },
];
/** Instances that are drawn before somebody asks for all. */
const FEW = 6;

const spots = (points: UsagePoint[], of: (point: UsagePoint) => number | null | undefined): Spot[] =>
  points.flatMap((point) => {
    const value = of(point);
    return value === null || value === undefined ? [] : [[Date.parse(point.at), value] as Spot];
  });

function levels(limits: UsageLimit[], parameter: string): Level[] {
  const limit = limits.find((each) => each.parameter === parameter);
  if (!limit) return [];
  const all: Level[] = [];
  if (typeof limit.raise === "number") all.push({ name: "alert from", value: limit.raise, kind: "raise" });
  if (typeof limit.fall === "number") all.push({ name: "over below", value: limit.fall, kind: "fall" });
  if (typeof limit.quota === "number") all.push({ name: "quota", value: limit.quota, kind: "quota" });
  return all;
}

const span = (alert: Alert): Span => ({
  name: `${alert.parameter ?? "usage"} is too high`,
  from: Date.parse(alert.at),
  till: alert.state === "active" ? null : Date.parse(alert.ended_at ?? alert.last_at),
});

interface Drawn {
  from: number;
  till: number;
  limits: UsageLimit[];
  points: UsagePoint[];
  alerts: Alert[];
}

function Charts({ of, node }: { of: Drawn; node?: NodeUsage | undefined }) {
  const { from, till, limits, points, alerts } = of;
  const about = (parameter: string) => alerts.filter((alert) => alert.parameter === parameter).map(span);
  const dmips = (value: number) =>
    `${Math.round(value).toLocaleString("en")} DMIPS${
      node && node.max_dmips > 0 ? ` (${Math.round((value * 100) / node.max_dmips)} %)` : ""
    }`;
  const partitions = [...new Set(points.flatMap((point) => Object.keys(point.partitions)))].sort();
  const down = spots(points, (point) => point.download);
  const up = spots(points, (point) => point.upload);
  return (
    <div className={css.charts}>
      <Chart
        title="CPU"
        lines={[{ name: "CPU", spots: spots(points, (point) => point.cpu) }]}
        levels={levels(limits, "cpu")}
        spans={about("cpu")}
        from={from}
        till={till}
        say={dmips}
        axis={(value) => Math.round(value).toLocaleString("en")}
      />
      <Chart
        title="Memory"
        lines={[{ name: "Memory", spots: spots(points, (point) => point.ram) }]}
        levels={levels(limits, "ram")}
        spans={about("ram")}
        from={from}
        till={till}
        say={bytes}
        binary
      />
      {partitions.map((name) => (
        <Chart
          key={name}
          title={`Disk: ${name}`}
          lines={[{ name, spots: spots(points, (point) => point.partitions[name]) }]}
          levels={levels(limits, name)}
          spans={about(name)}
          from={from}
          till={till}
          say={bytes}
          binary
          most={node?.partitions[name] ?? 0}
        />
      ))}
      {(down.length > 0 || up.length > 0) && (
        <>
          <Chart
            title="Network"
            lines={[
              { name: "received", spots: rates(down) },
              { name: "sent", spots: rates(up) },
            ]}
            from={from}
            till={till}
            say={(value) => `${bytes(value)}/s`}
            binary
          />
          <Chart
            title="Traffic of the day"
            lines={[
              { name: "received", spots: down },
              { name: "sent", spots: up },
            ]}
            levels={[
              ...levels(limits, "download").map((level) => ({ ...level, name: `received: ${level.name}` })),
              ...levels(limits, "upload").map((level) => ({ ...level, name: `sent: ${level.name}` })),
            ]}
            spans={[...about("download"), ...about("upload")]}
            from={from}
            till={till}
            say={bytes}
            binary
          />
        </>
      )}
    </div>
  );
}

const newest = (points: UsagePoint[]) => points.at(-1)?.at;

function OfNode({ node, of, till }: { node: NodeUsage; of: UnitMonitoring; till: number }) {
  const alerts = of.alerts.filter((alert) => alert.node_id === node.node_id && !alert.service);
  return (
    <Card
      title={`Node ${node.node_id}`}
      note={
        <>
          told <Ago at={newest(node.points)} />
        </>
      }
      inside
    >
      <Charts
        of={{ from: till - spanOf(of), till, limits: node.limits, points: node.points, alerts }}
        node={node}
      />
    </Card>
  );
}

function OfInstance({ one, of, till }: { one: InstanceUsage; of: UnitMonitoring; till: number }) {
  const alerts = of.alerts.filter(
    (alert) =>
      alert.service?.id === one.service.id &&
      alert.subject?.id === one.subject.id &&
      alert.instance_id === one.instance_id,
  );
  const on = of.nodes.find((node) => node.node_id === one.node_id);
  return (
    <Card
      title={`${one.service.title || one.service.codename} #${one.instance_id}`}
      note={
        <>
          on {one.node_id}, through {one.subject.label}, told <Ago at={newest(one.points)} />
        </>
      }
      inside
    >
      <Charts
        of={{ from: till - spanOf(of), till, limits: one.limits, points: one.points, alerts }}
        node={on && { ...on, partitions: {} }}
      />
    </Card>
  );
}

const spanOf = (of: UnitMonitoring) => Date.parse(of.datetime_till) - Date.parse(of.datetime_from);

/** What the Nodes and instances of a Unit use, with limits and alerts on the same axis. */
export function Monitoring({ id }: { id: string }) {
  const [minutes, setMinutes] = useState("60");
  const [all, showAll] = useState(false);
  const read = useQuery(monitoring(id, Number(minutes)));
  // Charts move with time, not only when something is told; a moment each five seconds is enough for the eye.
  const till = Math.floor(useNow() / 5000) * 5000;
  const known = read.data;
  const recent = (points: UsagePoint[]) =>
    known !== undefined && Date.parse(newest(points) ?? "") > till - spanOf(known) - HOLDS_MS;
  const instances = known?.instances.filter((one) => recent(one.points)) ?? [];
  // Who has an alert comes first.
  const troubled = (one: InstanceUsage) =>
    known?.alerts.some(
      (alert) =>
        alert.state === "active" &&
        alert.service?.id === one.service.id &&
        alert.instance_id === one.instance_id,
    )
      ? 0
      : 1;
  const sorted = [...instances].sort((one, other) => troubled(one) - troubled(other));
  const shown = all ? sorted : sorted.slice(0, FEW);
  return (
    <div className={css.room} data-monitoring={known ? "read" : "reading"}>
      <div className={css.tools}>
        <SegmentedControl
          data={SPANS}
          value={minutes}
          onChange={setMinutes}
          size="xs"
          aria-label="How far back"
        />
        <span className={css.legend}>
          A shaded time is an alert. Long dashes: alert from; short dashes: over below; dots: quota.
        </span>
      </div>
      {read.isPending && <Loading />}
      {read.error && (
        <Trouble error={read.error} doing="The usage could not be read" retry={() => void read.refetch()} />
      )}
      {known && known.nodes.length === 0 && (
        <Card>
          <Empty icon={Activity} title="Nothing was measured" small>
            The Unit tells what its Nodes and instances use as soon as it is linked. In this span it told
            nothing.
          </Empty>
        </Card>
      )}
      {known?.nodes.map((node) => (
        <OfNode key={node.node_id} node={node} of={known} till={till} />
      ))}
      {known &&
        shown.map((one) => (
          <OfInstance
            key={`${one.service.id}/${one.subject.id}/${one.instance_id}/${one.node_id}`}
            one={one}
            of={known}
            till={till}
          />
        ))}
      {sorted.length > shown.length && (
        <Button variant="default" onClick={() => showAll(true)}>
          Show all {sorted.length} instances
        </Button>
      )}
    </div>
  );
}
