import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import {
  Boxes,
  CalendarClock,
  CircleDot,
  Cpu,
  FileWarning,
  History,
  Hourglass,
  KeyRound,
  Link2,
  type LucideIcon,
  Network,
  Package,
  Share2,
  SlidersHorizontal,
  Target,
} from "lucide-react";
import { Link } from "wouter";
import { timeline } from "~/api/queries";
import type { TimelineEvent } from "~/api/types";
import { Card } from "~/parts/Room";
import { Empty, Loading, Trouble } from "~/parts/small";
import { clock, day, full } from "~/parts/time";
import css from "./unit.module.css";

const KINDS: Record<string, [LucideIcon, string]> = {
  unit: [Cpu, "Unit"],
  link: [Link2, "Link"],
  desired: [Target, "Desired state"],
  assignment: [Share2, "Assignment"],
  node: [Network, "Node"],
  item: [Package, "Deployable Item"],
  instance: [Boxes, "Instance"],
  unit_config: [SlidersHorizontal, "Unit configuration"],
  update: [Hourglass, "Update"],
  env_vars: [KeyRound, "Environment variables"],
  schedule: [CalendarClock, "Schedule"],
  protocol: [FileWarning, "Protocol"],
};

function days(events: TimelineEvent[]): [string, TimelineEvent[]][] {
  const out: [string, TimelineEvent[]][] = [];
  for (const event of events) {
    const name = day(event.at);
    const last = out.at(-1);
    if (last?.[0] === name) last[1].push(event);
    else out.push([name, [event]]);
  }
  return out;
}

/** What happened to a Unit and why, newest first. `brief` shows only the latest. */
export function Timeline({ id, brief }: { id: string; brief?: boolean }) {
  const read = useInfiniteQuery(timeline(id, brief ? 20 : 100));
  const events = (read.data?.pages ?? []).flatMap((page) => page.items);
  // Pages move on while new events come in: the same event may be read twice.
  const seen = new Set<number>();
  const shown = events.filter((event) => !seen.has(event.id) && seen.add(event.id));
  return (
    <Card
      title="Timeline"
      note="what happened, and why"
      actions={
        brief && (
          <Button component={Link} href={`/units/${id}/timeline`} variant="subtle" size="compact-sm">
            All
          </Button>
        )
      }
    >
      {read.isPending && <Loading />}
      {read.error && (
        <div style={{ padding: 16 }}>
          <Trouble
            error={read.error}
            doing="The timeline could not be read"
            retry={() => void read.refetch()}
          />
        </div>
      )}
      {read.data && shown.length === 0 && (
        <Empty icon={History} title="Nothing has happened yet" small>
          Joining, links, desired states and everything the Unit reports will be told here.
        </Empty>
      )}
      {days(shown).map(([name, of]) => (
        <section key={name} className={css.day} aria-label={name}>
          <h3>{name}</h3>
          <ol>
            {of.map((event) => {
              const [Icon, kind] = KINDS[event.kind] ?? [CircleDot, event.kind];
              return (
                <li key={event.id} className={css.event} data-severity={event.severity}>
                  <span className={css.kind} title={kind}>
                    <Icon size={13} aria-hidden />
                    <span className="only-heard">{kind}: </span>
                  </span>
                  <span className={css.said}>{event.text}</span>
                  <time dateTime={event.at} title={full(event.at)}>
                    {clock(event.at)}
                  </time>
                </li>
              );
            })}
          </ol>
        </section>
      ))}
      {!brief && read.hasNextPage && (
        <div className={css.older}>
          <Button
            variant="default"
            loading={read.isFetchingNextPage}
            onClick={() => void read.fetchNextPage()}
          >
            Show older
          </Button>
        </div>
      )}
    </Card>
  );
}
