// The little world behind the mock: a few Units in different states, services, assignments, and a script that plays a
// deployment whenever an assignment changes. For development and tests of the UI only.
import { randomBytes, randomUUID } from "node:crypto";
import { EventEmitter } from "node:events";

const now = () => new Date().toISOString();
const before = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();
const hex = (bytes) => randomBytes(bytes).toString("hex");
const STEP_MS = Number(process.env.MOCK_STEP_MS ?? 900);

export const bus = new EventEmitter().setMaxListeners(0);
export const world = {
  units: [],
  services: [],
  subjects: [],
  models: [],
  claims: [],
  bundles: [],
  audit: [],
};
let eventId = 1000;

export function change(topic, action, id) {
  bus.emit("change", { topic, action, id, at: now() });
}

export function audit(action, target, detail = "") {
  world.audit.unshift({ id: world.audit.length + 1, at: now(), actor: "user:owner", action, target, detail });
}

function tell(unit, kind, text, severity = "info", at = now(), more = {}) {
  eventId += 1;
  unit.timeline.unshift({ id: eventId, at, kind, severity, text, ...more });
}

const CRUN = (arch) => [
  { id: `crun-${arch}`, runtime_type: "crun", architecture: arch, os: "linux", max_instances: 0 },
];

function node(id, type, main, arch, over = {}) {
  return {
    node_id: id,
    node_type: type,
    title: over.title ?? "",
    is_main: main,
    is_connected: true,
    state: "provisioned",
    error: null,
    os: "linux",
    max_dmips: main ? 42000 : 18500,
    total_ram: main ? 8 * 2 ** 30 : 4 * 2 ** 30,
    physical_ram: main ? 8 * 2 ** 30 : 4 * 2 ** 30,
    cpus: [
      {
        model_name: "Cortex-A76",
        total_num_cores: main ? 8 : 4,
        total_num_threads: main ? 8 : 4,
        architecture: arch,
        variant: arch === "arm64" ? "v8" : null,
      },
    ],
    attrs: main ? { MainNode: "", AosGuarantee: "install-first" } : { AosGuarantee: "install-first" },
    labels: main ? ["main"] : ["secondary", "gpu"],
    partitions: [{ name: "storage", types: ["storage", "state"], total_size: 32 * 2 ** 30 }],
    runtimes: CRUN(arch),
    resources: [],
    ...over,
  };
}

function unit(system_uid, title, model, over = {}) {
  const made = {
    id: randomUUID(),
    system_uid,
    title,
    status: "provisioned",
    online_status: "Online",
    last_online_changed_at: before(86_400 * 2 + 4000),
    last_seen_at: now(),
    unit_model: model,
    installed_unit_config: { version: "1.4.0", state: "installed", error: null },
    update_phase: "none",
    download: null,
    created_at: before(86_400 * 9),
    updated_at: now(),
    nodes: [node("main-node", "main", true, "amd64"), node("secondary-node", "secondary", false, "amd64")],
    items: [],
    running: [],
    timeline: [],
    desired: null,
    fails: false,
    ...over,
  };
  tell(
    made,
    "unit",
    "The Unit joined with a claim code; 2 Nodes got their certificates.",
    "info",
    before(86_400 * 9),
  );
  tell(made, "link", "The link to the Unit is up.", "info", before(86_400 * 2 + 4000));
  world.units.push(made);
  return made;
}

export function counts(unit) {
  const instances = unit.running.flatMap((entry) => entry.instances);
  return {
    nodes: unit.nodes.length,
    nodes_connected: unit.nodes.filter((each) => each.is_connected).length,
    instances: instances.length,
    instances_active: instances.filter((each) => each.run_state === "active").length,
    instances_failed: instances.filter((each) => each.run_state === "failed").length,
    instances_desired: wanted(unit).reduce((sum, each) => sum + each.num_instances, 0),
    subjects: world.subjects.filter((subject) => subject.units.includes(unit.id)).length,
  };
}

function service(codename, title, description, versions) {
  const made = {
    id: randomUUID(),
    codename,
    title,
    description,
    created_at: before(86_400 * 6),
    versions: [],
  };
  for (const version of versions) addVersion(made, version, before(86_400 * 5));
  world.services.push(made);
  return made;
}

export function addVersion(service, version, at = now(), bundle_id = null) {
  service.versions.unshift({
    id: randomUUID(),
    version,
    state: "ready",
    platforms: ["linux/amd64", "linux/arm64/v8"],
    index_digest: `sha256:${hex(32)}`,
    size: 4_812_333,
    min_num_instances: 1,
    configuration: {
      created: at,
      author: "owner",
      runtimes: ["crun"],
      runParameters: { startInterval: "PT5S", startBurst: 3, restartInterval: "PT1S" },
      quotas: { cpuDMIPSLimit: 2000, ramLimit: 67_108_864, storageLimit: 16_777_216, stateLimit: 65_536 },
      publishedPorts: [{ hostPort: 8080, port: 80, protocol: "tcp" }],
    },
    bundle_id,
    created_at: at,
  });
}

export const serviceRef = (each) => ({ id: each.id, codename: each.codename, title: each.title });

// What the assignments want of a Unit.
function wanted(unit) {
  return world.subjects
    .filter((subject) => subject.units.includes(unit.id))
    .flatMap((subject) =>
      subject.services.map((entry) => {
        const found = world.services.find((each) => each.id === entry.service.id);
        return {
          subject: { id: subject.id, label: subject.label },
          service: entry.service,
          version: found?.versions[0]?.version ?? null,
          num_instances: entry.overrides.num_instances ?? 1,
          labels: entry.overrides.labels ?? [],
          priority: entry.overrides.priority ?? subject.priority,
        };
      }),
    );
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const name = (entry) => entry.service.title || entry.service.codename;

function place(unit, labels, n) {
  const fit = unit.nodes.filter((each) => labels.every((label) => each.labels.includes(label)));
  return fit.length === 0 ? null : fit[n % fit.length];
}

/** Plays one deployment on a Unit: composes, sends, and lets the Unit report stage by stage. */
export async function deploy(unit, quick = false) {
  const wants = wanted(unit);
  const pause = () => (quick ? Promise.resolve() : sleep(STEP_MS));
  const said = (action = "status") => {
    unit.updated_at = now();
    change("unit", action, unit.id);
  };
  unit.run = (unit.run ?? 0) + 1;
  const run = unit.run;
  const superseded = () => unit.run !== run;
  const number = (unit.desired?.number ?? 0) + 1;
  unit.desired = {
    number,
    desired_status: {
      messageType: "desiredStatus",
      unitConfig: { formatVersion: "1", version: "1.4.0" },
      items: wants.map((each) => ({
        item: { id: each.service.id },
        version: each.version,
        indexDigest: `sha256:${hex(32)}`,
      })),
      instances: wants.map((each) => ({
        item: { id: each.service.id },
        subject: { id: each.subject.id },
        priority: each.priority,
        numInstances: each.num_instances,
        labels: each.labels,
      })),
      subjects: wants.map((each) => ({
        identity: { id: each.subject.id, title: each.subject.label },
        type: "group",
      })),
    },
    composed_at: now(),
    sent_at: null,
    acknowledged_at: null,
    applied_at: null,
  };
  tell(
    unit,
    "desired",
    `Desired state no. ${number} was composed: ${wants.length} services, because an assignment changed.`,
  );
  for (const each of wants) {
    const have = unit.running.find(
      (old) => old.subject.id === each.subject.id && old.service.id === each.service.id,
    );
    if (have)
      Object.assign(have, {
        desired_version: each.version,
        num_instances: each.num_instances,
        labels: each.labels,
        priority: each.priority,
      });
    else
      unit.running.push({
        subject: each.subject,
        service: each.service,
        desired_version: each.version,
        installed_version: null,
        num_instances: each.num_instances,
        priority: each.priority,
        labels: each.labels,
        instances: [],
      });
  }
  for (const old of unit.running) {
    if (!wants.some((each) => each.subject.id === old.subject.id && each.service.id === old.service.id))
      old.desired_version = null;
  }
  unit.update_phase = "waiting_for_unit";
  said("desired");
  if (unit.online_status === "Offline") return;
  await pause();
  if (superseded()) return;
  unit.desired.sent_at = now();
  unit.desired.acknowledged_at = now();
  tell(unit, "desired", `The Unit acknowledged desired state no. ${number}.`);
  const fresh = wants.filter(
    (each) => !unit.items.some((item) => item.item_id === each.service.id && item.version === each.version),
  );
  for (const item of unit.items)
    item.desired = wants.some((each) => each.service.id === item.item_id && each.version === item.version);
  for (const each of fresh) {
    unit.items.unshift({
      item_id: each.service.id,
      item_type: "service",
      service: each.service,
      version: each.version,
      state: "downloading",
      error: null,
      desired: true,
      changed_at: now(),
    });
  }
  for (const phase of fresh.length > 0 ? ["downloading", "pending", "installing"] : []) {
    unit.update_phase = phase;
    unit.download =
      phase === "downloading"
        ? { bytes_here: 5_400_000, bytes_total: 12_000_000, blobs: 3, blobs_here: 1, hindrance: null }
        : null;
    for (const item of unit.items.filter((one) => one.desired && one.state !== "installed")) {
      item.state = phase;
      item.changed_at = now();
      tell(unit, "item", `${item.service.title} ${item.version}: ${phase}.`, "info", now(), {
        item_id: item.item_id,
      });
    }
    said();
    await pause();
    if (superseded()) return;
  }
  for (const item of unit.items.filter((one) => one.desired)) item.state = "installed";
  unit.update_phase = "waiting_for_active";
  for (const entry of unit.running.filter((one) => one.desired_version)) {
    entry.installed_version = entry.desired_version;
    entry.instances = Array.from({ length: entry.num_instances }, (_, n) => {
      const old = entry.instances[n];
      if (old && old.version === entry.desired_version && old.run_state === "active") return old;
      const at = place(unit, entry.labels, n);
      return {
        instance_id: n,
        version: entry.desired_version,
        run_state: at ? "activating" : "failed",
        node_id: at?.node_id ?? "",
        runtime_id: at?.runtimes[0]?.id ?? "",
        error: at
          ? null
          : { aos_code: 4, exit_code: 0, message: `no Node has the labels ${entry.labels.join(", ")}` },
        changed_at: now(),
      };
    });
  }
  said();
  await pause();
  if (superseded()) return;
  for (const entry of unit.running) {
    for (const instance of entry.instances.filter((one) => one.run_state === "activating")) {
      instance.run_state = unit.fails ? "failed" : "active";
      instance.changed_at = now();
      instance.error = unit.fails
        ? { aos_code: 1, exit_code: 3, message: "the process ended three times within 5 s" }
        : null;
      tell(
        unit,
        "instance",
        `${name(entry)} instance ${instance.instance_id} is ${instance.run_state} on ${instance.node_id}${unit.fails ? ": it ended three times within 5 s, exit code 3" : ""}.`,
        unit.fails ? "error" : "info",
        now(),
        { node_id: instance.node_id, instance_id: instance.instance_id },
      );
      if (!quick && entry.instances.length < 10) {
        said();
        await sleep(STEP_MS / 3);
        if (superseded()) return;
      }
    }
  }
  unit.running = unit.running.filter((entry) => entry.desired_version);
  unit.items = unit.items.filter((item) => item.desired);
  const failed = unit.running.some((entry) => entry.instances.some((each) => each.run_state === "failed"));
  unit.update_phase = failed ? "failed" : "installed";
  if (!failed) unit.desired.applied_at = now();
  tell(
    unit,
    "desired",
    failed
      ? `Desired state no. ${number} was not met: an instance did not become active. The last good set runs.`
      : `The Unit is as desired state no. ${number} says.`,
    failed ? "error" : "info",
  );
  said();
}

export function explain(unit, service) {
  const entry = unit.running.find((each) => each.service.id === service.id);
  const assigned = wanted(unit).some((each) => each.service.id === service.id);
  const online = unit.online_status !== "Offline";
  const acknowledged = Boolean(unit.desired?.acknowledged_at);
  const placed = entry?.instances.every((each) => each.node_id !== "") ?? true;
  const active = entry?.instances.length > 0 && entry.instances.every((each) => each.run_state === "active");
  const broken = entry?.instances.find((each) => each.run_state === "failed");
  const rules = [
    ["unit_provisioned", true, "The Unit has certificates of this cloud."],
    ["service_exists", true, `The service ${service.codename} exists.`],
    ["version_ready", true, `Version ${service.versions[0]?.version} is ready.`],
    [
      "assigned",
      assigned,
      assigned ? "Assigned through a Subject." : "No Subject brings it to this Unit.",
      "Assign it.",
    ],
    ["platform_fits", true, "linux/amd64 fits 2 of 2 Nodes."],
    [
      "labels_fit",
      placed,
      placed ? "2 of 2 Nodes fit." : "No Node has all the labels.",
      "Change the labels of the assignment, or give them to a Node in the unit configuration.",
    ],
    ["in_desired_state", Boolean(unit.desired), `Named in desired state no. ${unit.desired?.number ?? 0}.`],
    [
      "unit_linked",
      online,
      online ? "The Unit is Online." : `Offline since ${unit.last_seen_at}.`,
      "Nothing is wrong here: it goes on as soon as the Unit is linked. If it should be linked, look at its network.",
    ],
    ["acknowledged", acknowledged, "Acknowledged."],
    ["installed", entry?.installed_version === entry?.desired_version, "Installed."],
    [
      "running",
      active,
      active ? "All instances are active." : (broken?.error?.message ?? "Instances are starting."),
      "Look at what the service prints when it starts.",
    ],
  ];
  let open = true;
  const out = rules.map(([rule, holds, text, hint]) => {
    if (!open) return { rule, outcome: "not_checked", text: "" };
    if (holds) return { rule, outcome: "pass", text };
    open = false;
    const outcome = rule === "unit_linked" || (rule === "running" && !broken) ? "waiting" : "fail";
    return { rule, outcome, text, ...(hint ? { hint } : {}) };
  });
  const first = out.find((rule) => rule.outcome === "fail" || rule.outcome === "waiting");
  return {
    system_uid: unit.system_uid,
    service: serviceRef(service),
    as_desired: !first,
    summary: first
      ? `${service.title} is not as desired: ${first.text}`
      : `${service.title} ${service.versions[0]?.version} runs as desired.`,
    rules: out,
  };
}

/** Lets a bundle pass its stages. A file with `bad` in its name is refused. */
export async function build(bundle) {
  const bad = bundle.file_name.includes("bad");
  for (const stage of bundle.stages) {
    stage.state = "running";
    stage.started_at = now();
    bundle.state = "processing";
    change("bundle", "updated", bundle.id);
    await sleep(STEP_MS / 2);
    stage.finished_at = now();
    if (bad && stage.stage === "verify") {
      stage.state = "failed";
      stage.message = "The SHA3-512 of the inner archive is not the signed one.";
      stage.hint = "The file was changed after it was signed. Sign the folder again with `aos bundle sign`.";
      bundle.build_info = "The signature does not fit the content; nothing was stored.";
      for (const rest of bundle.stages.slice(2)) rest.state = "skipped";
      bundle.state = "error";
      change("bundle", "updated", bundle.id);
      return;
    }
    stage.state = "done";
    stage.message = {
      receive: "4.6 MiB received.",
      verify: "Signed by owner with a valid certificate of this cloud.",
      read: "1 item, schema version 2.",
      convert: "2 images, 3 layers.",
      publish: "web-hello 1.2.0 is ready.",
    }[stage.stage];
    if (stage.stage === "verify") bundle.signed_by = "owner";
    if (stage.stage === "read") {
      const web = world.services.find((each) => each.codename === "web-hello");
      bundle.items = [
        {
          item_type: "service",
          codename: "web-hello",
          title: web?.title ?? "",
          version: "1.2.0",
          service_id: web?.id ?? null,
          platforms: ["linux/amd64", "linux/arm64/v8"],
        },
      ];
    }
  }
  bundle.state = "done";
  const web = world.services.find((each) => each.codename === "web-hello");
  if (web && !bundle.is_check) {
    addVersion(web, "1.2.0", now(), bundle.id);
    change("service", "updated", web.id);
    for (const each of world.units.filter((one) => wanted(one).some((want) => want.service.id === web.id)))
      void deploy(each);
  }
  change("bundle", "updated", bundle.id);
}

export function newBundle(file_name, file_size, is_check) {
  const bundle = {
    id: randomUUID(),
    state: "uploaded",
    build_info: "",
    is_check,
    file_name,
    file_size,
    sha256: hex(32),
    signed_by: "",
    created_by: "owner",
    created_at: now(),
    items: [],
    stages: ["receive", "verify", "read", "convert", "publish"].map((stage) => ({
      stage,
      state: "waiting",
      message: "",
      started_at: null,
      finished_at: null,
    })),
  };
  world.bundles.unshift(bundle);
  return bundle;
}

export function newSubject(label, priority, is_group) {
  const subject = {
    id: randomUUID(),
    label,
    priority,
    is_group,
    is_protected: false,
    created_by: "owner",
    created_at: now(),
    units: [],
    services: [],
  };
  world.subjects.unshift(subject);
  return subject;
}

export async function fill() {
  const config = (version) => ({
    formatVersion: "1",
    version,
    nodes: [
      {
        nodeType: "main",
        labels: ["main"],
        priority: 10,
        resourceRatios: { cpu: 50, ram: 50, storage: 50, state: 50 },
      },
      { nodeType: "secondary", labels: ["secondary", "gpu"], priority: 5 },
    ],
  });
  const model = { id: randomUUID(), name: "aos-vehicle", version: "2.1", created_at: before(86_400 * 12) };
  model.configs = ["1.4.0", "1.3.0", "1.0.0"].map((version, n) => ({
    id: randomUUID(),
    version,
    unit_config: config(version),
    created_at: before(86_400 * (n * 3 + 1)),
  }));
  const bench = {
    id: randomUUID(),
    name: "aos-bench",
    version: "1.0",
    created_at: before(86_400 * 12),
    configs: [],
  };
  world.models.push(model, bench);
  const ref = (each) => ({ id: each.id, name: each.name, version: each.version });
  const web = service(
    "web-hello",
    "Web hello",
    "Answers HTTP requests on port 8080 of the host with a page of its own.",
    ["1.0.0", "1.1.0"],
  );
  const counter = service("counter", "Counter", "Counts its starts in storage and its ticks in state.", [
    "1.0.0",
  ]);
  const lidar = service("lidar-fusion", "Lidar fusion", "Needs a Node with a GPU.", ["0.9.2"]);
  service("telemetry-bridge", "", "", ["3.0.1"]);
  const a = unit("vehicle-0042", "Test car, Lviv", ref(model));
  const b = unit("vehicle-0043", "", ref(model));
  const c = unit("bench-04", "Bench 4", ref(bench), { fails: true });
  unit("vehicle-0101", "Night shuttle", ref(model), {
    online_status: "Offline",
    last_seen_at: before(5400),
    nodes: [
      node("main-node", "main", true, "arm64"),
      node("secondary-node", "secondary", false, "arm64", { is_connected: false }),
    ],
  });
  unit("0a7d5f6be0c94d4f8a1b2c3d4e5f6071", "", null, {
    status: "new",
    online_status: "Offline",
    last_seen_at: null,
    last_online_changed_at: null,
    nodes: [],
    timeline: [],
  });
  const all = newSubject("All test cars", 10, true);
  all.units = [a.id, b.id, c.id];
  all.services = [
    { service: serviceRef(web), overrides: {} },
    { service: serviceRef(counter), overrides: { num_instances: 3 } },
  ];
  const gpu = newSubject("Front perception", 50, true);
  gpu.units = [a.id];
  gpu.services = [
    { service: serviceRef(lidar), overrides: { num_instances: 12, labels: ["gpu"], priority: 80 } },
  ];
  for (const each of [a, b, c]) await deploy(each, true);
  world.claims.push(
    {
      id: randomUUID(),
      title: "Night shuttle",
      unit_model: ref(model),
      system_uid: null,
      state: "used",
      unit_id: world.units[3].id,
      created_by: "owner",
      created_at: before(90_000),
      expires_at: before(3600),
      used_at: before(80_000),
    },
    {
      id: randomUUID(),
      title: "Depot 7",
      unit_model: null,
      system_uid: null,
      state: "open",
      unit_id: null,
      created_by: "owner",
      created_at: before(900),
      expires_at: before(-85_000),
      used_at: null,
    },
  );
  const old = newBundle("web-hello-1.1.0.tar.gz", 4_812_333, false);
  Object.assign(old, {
    state: "done",
    signed_by: "owner",
    created_at: before(86_400 * 5),
    items: [
      {
        item_type: "service",
        codename: "web-hello",
        title: "Web hello",
        version: "1.1.0",
        service_id: web.id,
        platforms: ["linux/amd64"],
      },
    ],
  });
  for (const stage of old.stages)
    Object.assign(stage, { state: "done", started_at: old.created_at, finished_at: old.created_at });
  audit("subject.create", `subject:${all.id}`, "All test cars");
  audit("claim-code.create", `claim-code:${world.claims[1].id}`, "Depot 7");
}
