// The mock's side of logs: a Unit answers after a moment, a live log gets a line now and then.
import { randomUUID } from "node:crypto";
import { audit, change } from "./mock-world.mjs";

const STEP_MS = Number(process.env.MOCK_STEP_MS ?? 900);
const now = () => new Date().toISOString();
const logs = new Map();

const LINES = {
  system: () => `${now()} [kernel] device eth0 is up`,
  instance: () => `${now()} [telemetry-bridge:demo:0] GET /json HTTP/1.1 -> 200 OK`,
  crash: () =>
    [
      `${now()} [telemetry-bridge:demo:0] # crash of telemetry-bridge:demo:0 version 1.2.0`,
      `${now()} [telemetry-bridge:demo:0] # ended by signal 11 (SIGSEGV)`,
      `${now()} [telemetry-bridge:demo:0] # its last output:`,
      `${now()} [telemetry-bridge:demo:0] about to fall`,
    ].join("\n"),
};

function add(log, text) {
  for (const line of text.split("\n")) log.lines.push(line);
  log.about.bytes += text.length;
  log.about.state = "receiving";
  change("log", "updated", log.about.id);
}

function end(log, state = "done") {
  clearInterval(log.timer);
  log.about.state = state;
  log.about.finished_at = now();
  log.about.nodes = log.about.nodes.map((node) => ({ ...node, state: "ok", parts: 1, parts_count: 1 }));
  change("log", "updated", log.about.id);
}

const of = (unit) => [...logs.values()].filter((log) => log.unit === unit.id).reverse();

export const logRoutes = (find, raise) => {
  const one = (unit, id) => of(find.unit(unit)).find((log) => log.about.id === id) ?? raise("log");
  return [
    [
      "GET",
      "/units/{id}/logs/",
      ([id]) => {
        const items = of(find.unit(id)).map((log) => log.about);
        return { items, total: items.length, offset: 0 };
      },
    ],
    [
      "POST",
      "/units/{id}/logs/",
      ([id], _, body) => {
        const unit = find.unit(id);
        const about = {
          id: randomUUID(),
          log_type: body.log_type,
          service: body.service ? { id: body.service, codename: "telemetry-bridge", title: "" } : null,
          subject: body.subject ? { id: body.subject, label: "demo" } : null,
          instance_id: body.instance_id ?? null,
          date_from: body.date_from ?? null,
          date_till: null,
          follow_until: body.follow ? new Date(Date.now() + 900_000).toISOString() : null,
          state: "sent",
          message: null,
          nodes: unit.nodes.map((node) => ({
            node_id: node.node_id,
            state: "waiting",
            parts: 0,
            parts_count: 0,
            message: null,
          })),
          bytes: 0,
          created_by: "walker",
          created_at: now(),
          finished_at: null,
          kept_until: null,
        };
        const log = { unit: unit.id, about, lines: [] };
        logs.set(about.id, log);
        audit("log.request", `unit:${unit.id}`, body.log_type);
        change("log", "created", about.id);
        if (body.follow) log.timer = setInterval(() => add(log, LINES[body.log_type]()), STEP_MS);
        else
          setTimeout(() => {
            add(log, LINES[body.log_type]());
            end(log);
          }, STEP_MS);
        return about;
      },
    ],
    ["GET", "/units/{id}/logs/{log}/", ([id, log]) => one(id, log).about],
    [
      "DELETE",
      "/units/{id}/logs/{log}/",
      ([id, log]) => {
        const found = one(id, log);
        clearInterval(found.timer);
        logs.delete(found.about.id);
        change("log", "deleted", found.about.id);
      },
    ],
    [
      "POST",
      "/units/{id}/logs/{log}/stop/",
      ([id, log]) => {
        const found = one(id, log);
        end(found);
        return found.about;
      },
    ],
    [
      "GET",
      "/units/{id}/logs/{log}/lines/",
      ([id, log], query) => {
        const found = one(id, log);
        const get = (name) => query.get?.(name) ?? query[name];
        const after = get("after");
        const search = (get("search") ?? "").toLowerCase();
        const items = found.lines
          .map((text, at) => ({ cursor: `0.${at}`, node_id: found.about.nodes[0]?.node_id ?? "main", text }))
          .filter((_, at) => after === undefined || after === null || at > Number(after.split(".")[1]))
          .filter((line) => line.text.toLowerCase().includes(search));
        return { items, has_older: false, has_newer: false, unreadable_parts: 0 };
      },
    ],
  ];
};
