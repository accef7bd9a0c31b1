// A stand-in for AosCloud, for development and tests of the UI only: the shapes of REST v11, a session, server-sent events
// and a scripted deployment. Serves ../dist too, with the content security policy of the real server.
//
//   node e2e/mock.mjs [port]      MOCK_STEP_MS: length of a step of the script; MOCK_EMPTY=1: a cloud without anything
//
// Sign in as `owner` with `owner-password`, or open /welcome#token=mock-owner-token.
import { randomBytes, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { logRoutes } from "./mock-logs.mjs";
import { alertsOf, monitoringOf, narrowed } from "./mock-monitoring.mjs";
import { order, orderRoutes } from "./mock-orders.mjs";
import {
  audit,
  build,
  bus,
  change,
  counts,
  deploy,
  explain,
  fill,
  newBundle,
  newSubject,
  serviceRef,
  world,
} from "./mock-world.mjs";

const DIST = fileURLToPath(new URL("../dist", import.meta.url));
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};
const sessions = new Set();
const users = new Map([["owner", "owner-password"]]);
let ownerToken = "mock-owner-token";

class Refused extends Error {
  constructor(status, message, hint, field) {
    super(message);
    Object.assign(this, {
      status,
      body: { message, ...(hint ? { hint } : {}), ...(field ? { field } : {}) },
    });
  }
}
const absent = (what) =>
  new Refused(404, `There is no such ${what}.`, "It may have been removed; look at the list.");

const me = (username) => ({
  id: "0192f0aa-0000-7000-8000-0000000000aa",
  username,
  email: "",
  role: "oem",
  oem: { id: "0192f0aa-0000-7000-8000-0000000000ab", title: "Example Motors" },
  domain: "aos.example",
  fleets: [],
  permission_groups: [],
  permissions: [],
  effective_permissions: [],
  signed_in_by: "session",
});

function page(items, query, text) {
  const search = (query.get("search") ?? "").toLowerCase();
  const found = search === "" ? items : items.filter((each) => text(each).toLowerCase().includes(search));
  const offset = Number(query.get("offset") ?? 0);
  return {
    items: found.slice(offset, offset + Number(query.get("limit") ?? 100)),
    total: found.length,
    offset,
  };
}
const whole = (items) => ({ items, total: items.length, offset: 0 });

const showUnit = (unit) => {
  const { nodes, items, running, timeline, desired, fails, run, schedules, ordered_config, ...rest } = unit;
  return { ...rest, wanted_unit_config: order(unit).wanted, counts: counts(unit) };
};
const installed = (unit, service) => unit.running.filter((entry) => entry.service.id === service.id);
const assignedTo = (service) =>
  world.units.filter((unit) =>
    world.subjects.some(
      (s) => s.units.includes(unit.id) && s.services.some((e) => e.service.id === service.id),
    ),
  );
const showService = ({ versions, ...service }) => ({
  ...service,
  latest_version: versions[0]?.version ?? null,
  version_count: versions.length,
  unit_count: assignedTo(service).length,
});
const entryOf = (entry) => ({
  ...entry,
  latest_version: world.services.find((s) => s.id === entry.service.id)?.versions[0]?.version ?? null,
});
const showSubject = ({ units, services, ...subject }) => ({
  ...subject,
  unit_count: units.length,
  services: services.map(entryOf),
});
const subjectUnit = (id) => {
  const unit = world.units.find((each) => each.id === id);
  return { id, system_uid: unit.system_uid, title: unit.title, online_status: unit.online_status };
};
const showModel = ({ configs, ordered, schedules, ...model }) => ({
  ...model,
  ordered_unit_config: ordered ?? null,
  unit_config_version: configs[0]?.version ?? null,
  unit_count: world.units.filter((unit) => unit.unit_model?.id === model.id).length,
});

const find = {
  unit: (id) => world.units.find((each) => each.id === id || each.system_uid === id) ?? raise("Unit"),
  service: (id) => world.services.find((each) => each.id === id || each.codename === id) ?? raise("service"),
  subject: (id) => world.subjects.find((each) => each.id === id) ?? raise("Subject"),
  model: (id) => world.models.find((each) => each.id === id) ?? raise("unit model"),
  bundle: (id) => world.bundles.find((each) => each.id === id) ?? raise("bundle"),
  shown: (model) => showModel(model),
};
function raise(what) {
  throw absent(what);
}
function drop(list, item) {
  list.splice(list.indexOf(item), 1);
}
function redeploy(ids) {
  for (const id of ids) void deploy(find.unit(id));
}

// [method, path with {parts}, what to answer]. A handler gets the parts of the path, the query and the body.
const routes = [
  ["GET", "/users/me/", () => me("owner")],
  ["GET", "/units/", (_, q) => page(world.units.map(showUnit), q, (u) => `${u.system_uid} ${u.title}`)],
  ["GET", "/units/{id}/", ([id]) => showUnit(find.unit(id))],
  [
    "PATCH",
    "/units/{id}/",
    ([id], _, body) => {
      const unit = find.unit(id);
      if (body.title !== undefined) unit.title = body.title;
      if (body.unit_model !== undefined) {
        const model = find.model(body.unit_model);
        unit.unit_model = { id: model.id, name: model.name, version: model.version };
      }
      change("unit", "updated", unit.id);
      return showUnit(unit);
    },
  ],
  [
    "DELETE",
    "/units/{id}/",
    ([id]) => {
      const unit = find.unit(id);
      drop(world.units, unit);
      for (const subject of world.subjects) subject.units = subject.units.filter((each) => each !== unit.id);
      change("unit", "deleted", unit.id);
    },
  ],
  ["GET", "/units/{id}/nodes/", ([id]) => whole(find.unit(id).nodes)],
  ["GET", "/units/{id}/items/", ([id]) => whole(find.unit(id).items)],
  ["GET", "/units/{id}/subjects-services/", ([id]) => whole(find.unit(id).running)],
  [
    "GET",
    "/units/{id}/states/",
    ([id]) =>
      whole(
        find.unit(id).running.flatMap(({ service, subject, instances }) =>
          instances
            .filter((each) => each.run_state === "active")
            .map(({ instance_id, changed_at }) => ({
              service,
              subject,
              instance_id,
              checksum: "6ed0dd02806fa89e25de060c19d3ac86cabb87d6a0ddd05c333b84f4",
              size: 128,
              kept_at: changed_at,
            })),
        ),
      ),
  ],
  ["GET", "/units/{id}/timeline/", ([id], q) => page(find.unit(id).timeline, q, (e) => e.text)],
  ["GET", "/units/{id}/monitoring/", ([id], q) => monitoringOf(find.unit(id), q)],
  ["GET", "/units/{id}/alerts/", ([id], q) => page(narrowed(alertsOf(find.unit(id)), q), q, (a) => a.text)],
  ["GET", "/alerts/", (_, q) => page(narrowed(world.units.flatMap(alertsOf), q), q, (a) => a.text)],
  ["GET", "/units/{id}/desired-state/", ([id]) => find.unit(id).desired ?? raise("desired state")],
  ["GET", "/units/{id}/explain/", ([id], q) => explain(find.unit(id), find.service(q.get("service")))],
  [
    "GET",
    "/units/{id}/certificates/",
    ([id]) =>
      whole(
        find.unit(id).nodes.flatMap((node) =>
          ["iam", "sm", ...(node.is_main ? ["online", "offline", "cm"] : [])].map((cert_type) => ({
            cert_type,
            node_id: node.node_id,
            serial: "4f3a9c0177aa21be",
            valid_till: new Date(Date.now() + 86_400_000 * 360).toISOString(),
            status: "issued",
          })),
        ),
      ),
  ],
  [
    "GET",
    "/services/",
    (_, q) => page(world.services.map(showService), q, (s) => `${s.codename} ${s.title}`),
  ],
  ["GET", "/services/{id}/", ([id]) => showService(find.service(id))],
  [
    "DELETE",
    "/services/{id}/",
    ([id]) => {
      const service = find.service(id);
      const users = assignedTo(service);
      if (users.length > 0)
        throw new Refused(
          409,
          `${service.codename} is assigned to ${users.length} Units.`,
          "Take it out of its assignments first.",
        );
      drop(world.services, service);
      change("service", "deleted", service.id);
    },
  ],
  [
    "GET",
    "/services/{id}/service-versions/",
    ([id]) => {
      const service = find.service(id);
      return whole(
        service.versions.map((v) => ({
          ...v,
          unit_count: world.units.filter((u) =>
            installed(u, service).some((e) => e.installed_version === v.version),
          ).length,
        })),
      );
    },
  ],
  [
    "GET",
    "/services/{id}/units/",
    ([id]) => {
      const service = find.service(id);
      return whole(
        assignedTo(service).map((unit) => {
          const instances = installed(unit, service).flatMap((entry) => entry.instances);
          return {
            id: unit.id,
            system_uid: unit.system_uid,
            title: unit.title,
            assigned: true,
            versions: [
              ...new Set(
                installed(unit, service)
                  .map((e) => e.installed_version)
                  .filter(Boolean),
              ),
            ],
            instances: instances.length,
            instances_active: instances.filter((i) => i.run_state === "active").length,
          };
        }),
      );
    },
  ],
  ["GET", "/subjects/", (_, q) => page(world.subjects.map(showSubject), q, (s) => s.label)],
  [
    "POST",
    "/subjects/",
    (_, __, body) => {
      if (world.subjects.some((each) => each.label === body.label)) {
        throw new Refused(
          409,
          `There is a Subject called “${body.label}” already.`,
          "Choose another name, or add to that one.",
          "label",
        );
      }
      const subject = newSubject(body.label, body.priority ?? 0, body.is_group ?? true);
      change("subject", "created", subject.id);
      return [201, showSubject(subject)];
    },
  ],
  [
    "POST",
    "/assignments/",
    (_, __, body) => {
      const known = world.subjects.find((each) => each.label === body.subject);
      const subject = known ?? newSubject(body.subject, body.subject_priority ?? 0, body.is_group ?? true);
      if (body.reported_as) subject.reported_as = body.reported_as;
      for (const { service: name, overrides } of body.services ?? []) {
        const service = find.service(name);
        const have = subject.services.find((entry) => entry.service.id === service.id);
        if (have) have.overrides = overrides ?? {};
        else subject.services.push({ service: serviceRef(service), overrides: overrides ?? {} });
      }
      const added = (body.system_uids ?? [])
        .map((each) => find.unit(each).id)
        .filter((each) => !subject.units.includes(each));
      subject.units.push(...added);
      change("subject", known ? "updated" : "created", subject.id);
      redeploy(subject.units);
      return [201, showSubject(subject)];
    },
  ],
  ["GET", "/subjects/{id}/", ([id]) => showSubject(find.subject(id))],
  [
    "PATCH",
    "/subjects/{id}/",
    ([id], _, body) => {
      const subject = Object.assign(find.subject(id), body);
      change("subject", "updated", id);
      return showSubject(subject);
    },
  ],
  [
    "DELETE",
    "/subjects/{id}/",
    ([id]) => {
      const subject = find.subject(id);
      drop(world.subjects, subject);
      change("subject", "deleted", id);
      redeploy(subject.units);
    },
  ],
  ["GET", "/subjects/{id}/units/", ([id]) => whole(find.subject(id).units.map(subjectUnit))],
  [
    "POST",
    "/subjects/{id}/units/",
    ([id], _, body) => {
      const subject = find.subject(id);
      const added = body.system_uids
        .map((each) => find.unit(each).id)
        .filter((each) => !subject.units.includes(each));
      subject.units.push(...added);
      change("subject", "updated", id);
      redeploy(added);
      return [201, whole(subject.units.map(subjectUnit))];
    },
  ],
  [
    "DELETE",
    "/subjects/{id}/units/{unit}/",
    ([id, unit]) => {
      const subject = find.subject(id);
      const gone = find.unit(unit);
      subject.units = subject.units.filter((each) => each !== gone.id);
      change("subject", "updated", id);
      redeploy([gone.id]);
    },
  ],
  ["GET", "/subjects/{id}/services/", ([id]) => whole(find.subject(id).services.map(entryOf))],
  [
    "POST",
    "/subjects/{id}/services/",
    ([id], _, body) => {
      const subject = find.subject(id);
      const { service_ids, ...overrides } = body;
      for (const each of service_ids) {
        const service = find.service(each);
        const have = subject.services.find((entry) => entry.service.id === service.id);
        if (have) have.overrides = overrides;
        else subject.services.push({ service: serviceRef(service), overrides });
      }
      change("subject", "updated", id);
      redeploy(subject.units);
      return [201, whole(subject.services.map(entryOf))];
    },
  ],
  [
    "PUT",
    "/subjects/{id}/services/{service}/",
    ([id, service], _, body) => {
      const subject = find.subject(id);
      const entry =
        subject.services.find((each) => each.service.id === find.service(service).id) ??
        raise("service in this Subject");
      entry.overrides = body;
      change("subject", "updated", id);
      redeploy(subject.units);
      return entryOf(entry);
    },
  ],
  [
    "DELETE",
    "/subjects/{id}/services/{service}/",
    ([id, service]) => {
      const subject = find.subject(id);
      subject.services = subject.services.filter((each) => each.service.id !== find.service(service).id);
      change("subject", "updated", id);
      redeploy(subject.units);
    },
  ],
  ["GET", "/unit-models/", (_, q) => page(world.models.map(showModel), q, (m) => m.name)],
  [
    "POST",
    "/unit-models/",
    (_, __, body) => {
      const model = {
        id: randomUUID(),
        name: body.name,
        version: body.version,
        created_at: new Date().toISOString(),
        configs: [],
      };
      world.models.push(model);
      change("unit_model", "created", model.id);
      return [201, showModel(model)];
    },
  ],
  ["GET", "/unit-models/{id}/", ([id]) => showModel(find.model(id))],
  [
    "DELETE",
    "/unit-models/{id}/",
    ([id]) => {
      const model = find.model(id);
      if (showModel(model).unit_count > 0)
        throw new Refused(
          409,
          `${model.name} is the model of ${showModel(model).unit_count} Units.`,
          "Give them another model first.",
        );
      drop(world.models, model);
      change("unit_model", "deleted", id);
    },
  ],
  ["GET", "/unit-models/{id}/unit-configs/", ([id]) => whole(find.model(id).configs)],
  [
    "POST",
    "/unit-models/{id}/unit-configs/",
    ([id], _, body) => {
      const made = {
        id: randomUUID(),
        version: body.unit_config.version,
        unit_config: body.unit_config,
        created_at: new Date().toISOString(),
      };
      find.model(id).configs.unshift(made);
      if (body.order !== false) find.model(id).ordered = made.version;
      change("unit_model", "updated", id);
      return [201, made];
    },
  ],
  ["GET", "/claim-codes/", (_, q) => page(world.claims, q, (c) => c.title)],
  [
    "POST",
    "/claim-codes/",
    (_, __, body) => {
      const model = body.unit_model ? find.model(body.unit_model) : null;
      const claim = {
        id: randomUUID(),
        title: body.title ?? "",
        unit_model: model && { id: model.id, name: model.name, version: model.version },
        system_uid: body.system_uid ?? null,
        state: "open",
        unit_id: null,
        created_by: "owner",
        created_at: new Date().toISOString(),
        expires_at: new Date(Date.now() + 60_000 * (body.expires_in_minutes ?? 1440)).toISOString(),
        used_at: null,
      };
      world.claims.unshift(claim);
      change("claim_code", "created", claim.id);
      const code = randomBytes(16)
        .toString("hex")
        .replace(/(.{8})(?=.)/g, "$1-");
      const ca_fingerprint = `sha256:${randomBytes(32).toString("hex")}`;
      return [
        201,
        {
          claim_code: claim,
          code,
          ca_fingerprint,
          join_command: `aos unit join --cloud https://aos.example:10000 --code ${code} --ca-fingerprint ${ca_fingerprint}`,
        },
      ];
    },
  ],
  [
    "DELETE",
    "/claim-codes/{id}/",
    ([id]) => {
      drop(world.claims, world.claims.find((each) => each.id === id) ?? raise("claim code"));
      change("claim_code", "deleted", id);
    },
  ],
  ["GET", "/deployment-bundles/", (_, q) => page(world.bundles, q, (b) => b.file_name)],
  ["GET", "/deployment-bundles/{id}/", ([id]) => find.bundle(id)],
  ...orderRoutes(find, raise, Refused),
  ...logRoutes(find, raise),
  ["GET", "/audit/", (_, q) => page(world.audit, q, (e) => `${e.actor} ${e.action} ${e.target} ${e.detail}`)],
];

const table = routes.map(([method, path, act]) => ({
  method,
  act,
  shape: new RegExp(`^${path.replace(/\{\w+\}/g, "([^/]+)")}$`),
}));

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

function session(request) {
  const id = /aos-mock-session=(\w+)/.exec(request.headers.cookie ?? "")?.[1];
  return id !== undefined && sessions.has(id) ? id : null;
}

function open(response, username, status) {
  const id = randomBytes(16).toString("hex");
  sessions.add(id);
  response.setHeader("set-cookie", `aos-mock-session=${id}; HttpOnly; SameSite=Strict; Path=/`);
  return [status, { user: me(username), expires_at: new Date(Date.now() + 3_600_000).toISOString() }];
}

async function rest(request, response, url) {
  const path = url.pathname.slice("/api/v11".length);
  if (request.method === "POST" && path === "/sign-in/") {
    const { username, password } = JSON.parse(await body(request));
    if (users.get(username) !== password) {
      throw new Refused(
        401,
        "Name or password is wrong.",
        "Check capital letters. After several wrong tries, wait a minute.",
      );
    }
    return open(response, username, 200);
  }
  if (request.method === "POST" && path === "/owner-setup/") {
    const { token, username, password } = JSON.parse(await body(request));
    if (token !== ownerToken)
      throw new Refused(
        401,
        "This owner link was used already, or is not of this cloud.",
        "Read the file again: `cat <data folder>/owner-link.txt`.",
      );
    ownerToken = null;
    users.set(username, password);
    return open(response, username, 201);
  }
  const id = session(request);
  if (id === null) throw new Refused(401, "Nobody is signed in.", "Sign in, or use a client certificate.");
  if (request.method !== "GET" && !request.headers["x-aos-request"])
    throw new Refused(403, "The header x-aos-request is missing.");
  if (path === "/sign-out/") {
    sessions.delete(id);
    return [204];
  }
  if (path === "/events/") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write(": here\n\n");
    const say = (event) => response.write(`event: ${event.topic}\ndata: ${JSON.stringify(event)}\n\n`);
    bus.on("change", say);
    request.on("close", () => bus.off("change", say));
    return null;
  }
  if (path === "/deployment-bundles/upload/") {
    const content = await body(request);
    const name = /filename="([^"]*)"/.exec(content.subarray(0, 600).toString("latin1"))?.[1] ?? "";
    const bundle = newBundle(name, content.length, url.searchParams.get("check") === "true");
    change("bundle", "created", bundle.id);
    const built = build(bundle);
    if (bundle.is_check) await built;
    return [201, bundle];
  }
  for (const { method, shape, act } of table) {
    const match = method === request.method && shape.exec(path);
    if (!match) continue;
    const content = ["POST", "PUT", "PATCH"].includes(method)
      ? JSON.parse((await body(request)).toString() || "null")
      : null;
    const answer = act(match.slice(1).map(decodeURIComponent), url.searchParams, content);
    if (method !== "GET") audit(`${path.split("/")[1].replace(/s$/, "")}.${method.toLowerCase()}`, path);
    if (answer === undefined) return [204];
    return Array.isArray(answer) ? answer : [200, answer];
  }
  throw new Refused(404, `There is no ${request.method} ${path}.`);
}

async function file(response, path) {
  const wanted = normalize(join(DIST, path));
  const inside = wanted.startsWith(DIST) && extname(path) !== "" ? wanted : join(DIST, "index.html");
  try {
    const content = await readFile(inside);
    response.writeHead(200, {
      "content-type": TYPES[extname(inside)] ?? "application/octet-stream",
      "content-security-policy": POLICY,
    });
    response.end(content);
  } catch {
    response.writeHead(404).end();
  }
}

/** Starts the mock on a loopback port (0: any free one) and gives the server. */
export async function start(port) {
  if (!process.env.MOCK_EMPTY && world.units.length === 0) await fill();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://mock");
    if (!url.pathname.startsWith("/api/v11/")) return file(response, url.pathname);
    try {
      const answer = await rest(request, response, url);
      if (answer === null) return;
      const [status, content] = answer;
      response.writeHead(status, { "content-type": "application/json" });
      response.end(content === undefined ? "" : JSON.stringify(content));
    } catch (error) {
      if (!(error instanceof Refused)) console.error(error);
      response.writeHead(error.status ?? 500, { "content-type": "application/json" });
      response.end(JSON.stringify(error.body ?? { message: String(error) }));
    }
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return server;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await start(Number(process.argv[2] ?? 10180));
  console.log(`mock AosCloud on http://127.0.0.1:${server.address().port} (owner / owner-password)`);
}
