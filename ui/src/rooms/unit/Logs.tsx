import { Button, SegmentedControl, Select, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Download, Radio, ScrollText, Square, Trash2 } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { address, get, path, post, remove } from "~/api/client";
import { unitLogs } from "~/api/queries";
import type { LogKind, LogLine, LogLines, LogRequest, Node, Unit, UnitSubjectService } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { full } from "~/parts/time";
import type { Tone } from "~/parts/tone";
import css from "./logs.module.css";

const KINDS: { value: LogKind; label: string }[] = [
  { value: "instance", label: "Services" },
  { value: "crash", label: "Crashes" },
  { value: "system", label: "System" },
];

const PERIODS: [string, string, number | null][] = [
  ["15m", "Last 15 minutes", 900],
  ["1h", "Last hour", 3600],
  ["1d", "Last day", 86_400],
  ["7d", "Last 7 days", 7 * 86_400],
  ["all", "All that is kept", null],
];

/** What a request's state means, in a word for people and a tone. */
const STATES: Record<LogRequest["state"], [string, Tone]> = {
  created: ["asking", "busy"],
  "waiting unit": ["waits for the Unit", "busy"],
  sent: ["asking", "busy"],
  receiving: ["receiving", "busy"],
  done: ["done", "good"],
  error: ["nothing", "bad"],
  "empty log has been provided": ["no line", "idle"],
};

export const isOver = (log: LogRequest) => log.finished_at !== null && log.finished_at !== undefined;

/** What a log is of, in one line. */
export function about(log: LogRequest): string {
  if (log.log_type === "system") return "System";
  const of = [
    log.service?.codename ?? "all services",
    log.subject?.label,
    log.instance_id === null || log.instance_id === undefined ? undefined : `#${log.instance_id}`,
  ].filter(Boolean);
  return `${log.log_type === "crash" ? "Crashes of" : "Log of"} ${of.join(" / ")}`;
}

/** Most lines that are shown at once; older ones can be asked for. */
const MOST = 5000;
const PAGE = 1000;

interface Shown {
  lines: LogLine[];
  older: boolean;
  unreadable: number;
}

const NOTHING: Shown = { lines: [], older: false, unreadable: 0 };

/** The lines of a log: the newest first, then what comes after them as it comes. */
function useLines(unit: string, log: LogRequest, search: string) {
  const [shown, show] = useState<Shown>(NOTHING);
  const [error, fail] = useState<unknown>(null);
  const [reading, read] = useState(false);
  const at = path`/units/${unit}/logs/${log.id}/lines/`;
  const version = `${log.bytes} ${log.state}`;
  const newest = useRef<string | undefined>(undefined);
  const wanted = useRef("");
  const key = `${log.id} ${search}`;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the version says that there is more to read
  useEffect(() => {
    const stop = new AbortController();
    const anew = wanted.current !== key;
    if (anew) {
      wanted.current = key;
      newest.current = undefined;
      show(NOTHING);
    }
    const readOn = async () => {
      read(true);
      try {
        for (;;) {
          const after = newest.current;
          const query = { limit: PAGE, search, ...(after === undefined ? {} : { after }) };
          const page = await get<LogLines>(at, query, stop.signal);
          const last = page.items.at(-1);
          if (last) newest.current = last.cursor;
          show((before) => ({
            lines: after === undefined ? page.items : [...before.lines, ...page.items].slice(-MOST),
            older: before.older || page.has_older || before.lines.length + page.items.length > MOST,
            unreadable: page.unreadable_parts,
          }));
          fail(null);
          if (after === undefined || !page.has_newer || !last) return;
        }
      } catch (problem) {
        if (!stop.signal.aborted) fail(problem);
      } finally {
        if (!stop.signal.aborted) read(false);
      }
    };
    void readOn();
    return () => stop.abort();
  }, [key, version, at]);
  const older = async () => {
    const first = shown.lines[0];
    if (!first) return;
    read(true);
    try {
      const page = await get<LogLines>(at, { limit: PAGE, search, before: first.cursor });
      show((before) => ({ ...before, lines: [...page.items, ...before.lines], older: page.has_older }));
    } catch (problem) {
      fail(problem);
    } finally {
      read(false);
    }
  };
  return { shown, error, reading, older };
}

/** `<time> [<source>] <text>` in its pieces; a line of another shape as it is. */
export function pieces(text: string): { at?: string; source?: string; said: string } {
  const found = /^(\S+) \[([^\]]*)\] ?(.*)$/.exec(text);
  if (!found) return { said: text };
  return { at: found[1] ?? "", source: found[2] ?? "", said: found[3] ?? "" };
}

/** The source of a line with names instead of ids, as far as they are known. */
export function named(source: string, names: Map<string, string>): string {
  return source
    .split(/([: ])/)
    .map((word) => names.get(word) ?? word)
    .join("");
}

function Line({ line, node, names }: { line: LogLine; node: boolean; names: Map<string, string> }) {
  const { at, source, said } = pieces(line.text);
  const note = said.startsWith("# ");
  return (
    <li data-log-line data-note={note || undefined} data-stderr={source?.endsWith(" stderr") || undefined}>
      {at && (
        <time dateTime={at} title={full(at)}>
          {at.slice(11, 23).replace("Z", "")}
        </time>
      )}
      {node && <span className={css.node}>{line.node_id}</span>}
      {source && (
        <span className={css.source} title={source}>
          {named(source, names)}
        </span>
      )}
      <span className={css.said}>{said}</span>
    </li>
  );
}

function LogView(properties: {
  unit: Unit;
  log: LogRequest;
  names: Map<string, string>;
  forget: () => void;
}) {
  const { unit, log, names, forget } = properties;
  const client = useQueryClient();
  const [typed, type] = useState("");
  const [search, look] = useState("");
  const { shown, error, reading, older } = useLines(unit.id, log, search);
  const [refused, refuse] = useState<unknown>(null);
  const box = useRef<HTMLOListElement>(null);
  const bottom = useRef(true);
  const live = log.follow_until !== null && log.follow_until !== undefined && !isOver(log);
  const last = shown.lines.at(-1)?.cursor;
  useEffect(() => {
    const timer = setTimeout(() => look(typed.trim()), 250);
    return () => clearTimeout(timer);
  }, [typed]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new last line moves the view, unless somebody reads above
  useEffect(() => {
    if (bottom.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [last]);
  const again = () => client.invalidateQueries({ queryKey: ["log"] });
  const stop = () => post(path`/units/${unit.id}/logs/${log.id}/stop/`).then(again).catch(refuse);
  const [word, tone] = STATES[log.state];
  const several = new Set(shown.lines.map((line) => line.node_id)).size > 1;
  const told = log.nodes.filter((node) => node.message && (node.state === "failed" || log.state === "error"));
  return (
    <Card
      title={about(log)}
      note={live ? "live" : `asked ${full(log.created_at)}`}
      actions={
        <>
          {live && (
            <Button
              size="compact-sm"
              variant="default"
              leftSection={<Square size={12} aria-hidden />}
              onClick={() => void stop()}
            >
              Stop
            </Button>
          )}
          {log.bytes > 0 && (
            <Button
              size="compact-sm"
              variant="default"
              component="a"
              href={address(path`/units/${unit.id}/logs/${log.id}/download-log-file/`)}
              download
              leftSection={<Download size={12} aria-hidden />}
            >
              Download
            </Button>
          )}
          <Button
            size="compact-sm"
            variant="subtle"
            color="red"
            aria-label="Remove this log"
            onClick={() =>
              void remove(path`/units/${unit.id}/logs/${log.id}/`).then(again).then(forget).catch(refuse)
            }
          >
            <Trash2 size={13} aria-hidden />
          </Button>
        </>
      }
    >
      <div className={css.view} data-log={log.id} data-log-state={log.state} data-live={live || undefined}>
        <div className={css.bar}>
          <TextInput
            size="xs"
            placeholder="Search in these lines"
            aria-label="Search in this log"
            value={typed}
            onChange={(event) => type(event.currentTarget.value)}
            className={css.search}
          />
          <Mark state={log.state} word={word} tone={tone} />
          <span className={css.count}>
            {shown.lines.length} line{shown.lines.length === 1 ? "" : "s"}
            {search && " found"}
          </span>
        </div>
        {Boolean(error) && <Trouble error={error} doing="The lines could not be read" />}
        {Boolean(refused) && <Trouble error={refused} doing="It could not be done" />}
        {log.message && <p className={css.told}>{log.message}</p>}
        {told.map((node) => (
          <p key={node.node_id} className={css.told}>
            {node.node_id}: {node.message}
          </p>
        ))}
        {shown.unreadable > 0 && (
          <p className={css.told}>{shown.unreadable} parts are damaged and left out.</p>
        )}
        {shown.lines.length === 0 && !reading && (
          <Empty icon={ScrollText} title={isOver(log) || search ? "No line" : "Nothing yet"} small>
            {search
              ? "No line of this log holds that text."
              : isOver(log)
                ? "Nothing was written in that time."
                : "Lines appear here as soon as the Unit sends them."}
          </Empty>
        )}
        {shown.lines.length > 0 && (
          <ol
            className={css.lines}
            ref={box}
            // biome-ignore lint/a11y/noNoninteractiveTabindex: who has no mouse scrolls it by keys
            tabIndex={0}
            aria-label="Lines"
            onScroll={(event) => {
              const at = event.currentTarget;
              bottom.current = at.scrollHeight - at.scrollTop - at.clientHeight < 40;
            }}
          >
            {shown.older && (
              <li>
                <Button size="compact-xs" variant="subtle" loading={reading} onClick={() => void older()}>
                  Show older
                </Button>
              </li>
            )}
            {shown.lines.map((line) => (
              <Line key={line.cursor} line={line} node={several} names={names} />
            ))}
          </ol>
        )}
      </div>
    </Card>
  );
}

/** What an instance is called in the list: its service, its Subject and its number. */
function instances(services: UnitSubjectService[]) {
  const all = services.flatMap((entry) => {
    const of = { service: entry.service.id, subject: entry.subject.id };
    const name = `${entry.service.codename} / ${entry.subject.label}`;
    const each = entry.instances.map((one) => ({
      value: JSON.stringify({ ...of, instance_id: one.instance_id }),
      label: `${name} / ${one.instance_id}`,
    }));
    return [{ value: JSON.stringify(of), label: name }, ...each];
  });
  return [{ value: "{}", label: "All services" }, ...all];
}

/** The logs of a Unit: asked for, followed, searched and downloaded. */
export function Logs({
  unit,
  nodes,
  services,
}: {
  unit: Unit;
  nodes: Node[];
  services: UnitSubjectService[];
}) {
  const client = useQueryClient();
  const logs = useQuery(unitLogs(unit.id));
  const [kind, choose] = useState<LogKind>("instance");
  const [of, pick] = useState("{}");
  const [node, pickNode] = useState<string | null>(null);
  const [period, pickPeriod] = useState("1h");
  const [chosen, open] = useState<string | null>(null);
  const [refused, refuse] = useState<unknown>(null);
  const [asking, ask] = useState(false);
  const items = logs.data?.items ?? [];
  const names = new Map(
    services.flatMap((entry): [string, string][] => [
      [entry.service.id, entry.service.codename],
      [entry.subject.id, entry.subject.label],
    ]),
  );
  const shown = items.find((log) => log.id === chosen) ?? items[0];
  const request = async (follow: boolean) => {
    ask(true);
    refuse(null);
    const seconds = PERIODS.find(([value]) => value === period)?.[2] ?? null;
    const from = follow ? 60 : seconds;
    try {
      const log = await post<LogRequest>(path`/units/${unit.id}/logs/`, {
        log_type: kind,
        ...(kind === "system" ? {} : (JSON.parse(of) as object)),
        ...(node ? { nodes: [node] } : {}),
        ...(from === null ? {} : { date_from: new Date(Date.now() - from * 1000).toISOString() }),
        ...(follow ? { follow: true } : {}),
      });
      await client.invalidateQueries({ queryKey: ["log"] });
      open(log.id);
    } catch (problem) {
      refuse(problem);
    } finally {
      ask(false);
    }
  };
  return (
    <div className={css.room} data-room-part="logs">
      <Card title="Logs" note="asked of the Unit; kept here for seven days">
        <div className={css.form}>
          <SegmentedControl
            data={KINDS}
            value={kind}
            onChange={(value) => choose(value as LogKind)}
            aria-label="Which log"
          />
          {kind !== "system" && (
            <Select
              label="Of which instances"
              data={instances(services)}
              value={of}
              onChange={(value) => pick(value ?? "{}")}
              allowDeselect={false}
              searchable
            />
          )}
          <Select
            label="On which Node"
            placeholder="All Nodes"
            data={nodes.map((each) => ({ value: each.node_id, label: each.title || each.node_id }))}
            value={node}
            onChange={pickNode}
            clearable
          />
          <Select
            label="Of which time"
            data={PERIODS.map(([value, label]) => ({ value, label }))}
            value={period}
            onChange={(value) => pickPeriod(value ?? "1h")}
            allowDeselect={false}
          />
          <div className={css.acts}>
            <Button loading={asking} onClick={() => void request(false)}>
              Ask for it
            </Button>
            {kind !== "crash" && (
              <Button
                variant="default"
                disabled={asking || unit.online_status === "Offline"}
                leftSection={<Radio size={14} aria-hidden />}
                onClick={() => void request(true)}
              >
                Follow
              </Button>
            )}
          </div>
        </div>
        {Boolean(refused) && <Trouble error={refused} doing="The Unit could not be asked" />}
        {logs.isPending && <Loading />}
        {logs.error && <Trouble error={logs.error} doing="The logs could not be read" />}
        {items.length > 0 && (
          <ul className={css.list} aria-label="Logs that were asked for">
            {items.map((log) => {
              const [word, tone] = STATES[log.state];
              return (
                <li key={log.id}>
                  <button
                    type="button"
                    aria-pressed={log.id === shown?.id}
                    data-log-row={log.id}
                    data-log-state={log.state}
                    onClick={() => open(log.id)}
                  >
                    <span>{about(log)}</span>
                    <Mark
                      state={log.state}
                      word={log.follow_until && !isOver(log) ? "live" : word}
                      tone={tone}
                    />
                    <span className={css.when}>
                      <Ago at={log.created_at} />
                    </span>
                  </button>
                </li>
              );
            })}
          </ul>
        )}
      </Card>
      {shown ? (
        <LogView key={shown.id} unit={unit} log={shown} names={names} forget={() => open(null)} />
      ) : (
        logs.data && (
          <Card>
            <Empty icon={ScrollText} title="No log was asked for yet" small>
              Logs stay on the Unit until somebody asks. Choose which, and ask for it or follow it.
            </Empty>
          </Card>
        )
      )}
    </div>
  );
}
