// Usage and alerts of the mock: waves that move with time, a limit, one alert that goes on and some that are over.
const MINUTE = 60_000;
const iso = (at) => new Date(at).toISOString();

function points(from, till, seed, scale) {
  const out = [];
  const step = Math.max(10_000, (till - from) / 300);
  for (let at = Math.floor(from / step) * step; at <= till; at += step) {
    const wave = Math.sin(at / (17 * MINUTE) + seed) + Math.sin(at / (3 * MINUTE) + 2 * seed) / 3;
    out.push({
      at: iso(at),
      cpu: Math.round(scale * (4000 + 2500 * wave)),
      ram: Math.round(scale * 2 ** 30 * (1.5 + wave / 4)),
      download: Math.round((at % (1440 * MINUTE)) * scale * 3),
      upload: Math.round((at % (1440 * MINUTE)) * scale),
      partitions: scale < 1 ? { storages: Math.round(2 ** 26 * (1.2 + wave / 4)) } : { aos: 2 ** 33 },
    });
  }
  return out;
}

const alert = (unit, more) => ({
  unit_id: unit.id,
  system_uid: unit.system_uid,
  unit_title: unit.title,
  severity: "warning",
  count: 1,
  ended_at: null,
  node_id: null,
  service: null,
  subject: null,
  instance_id: null,
  parameter: null,
  value: null,
  ...more,
});

export function alertsOf(unit) {
  if (unit.nodes.length === 0) return [];
  const now = Date.now();
  const node = unit.nodes[0].node_id;
  const entry = unit.running[0];
  const all = [
    alert(unit, {
      id: 1,
      tag: "systemQuotaAlert",
      state: "ended",
      at: iso(now - 41 * MINUTE),
      last_at: iso(now - 35 * MINUTE),
      ended_at: iso(now - 35 * MINUTE),
      node_id: node,
      parameter: "cpu",
      value: 6400,
      count: 7,
      text: `Node ${node} uses too much cpu: 6400 DMIPS`,
    }),
    alert(unit, {
      id: 2,
      tag: "systemAlert",
      state: "once",
      at: iso(now - 20 * MINUTE),
      last_at: iso(now - 18 * MINUTE),
      node_id: node,
      count: 3,
      text: "kernel: mmc0: Timeout waiting for hardware interrupt.",
    }),
  ];
  if (entry)
    all.push(
      alert(unit, {
        id: 3,
        tag: "instanceQuotaAlert",
        state: "active",
        at: iso(now - 4 * MINUTE),
        last_at: iso(now),
        service: entry.service,
        subject: entry.subject,
        instance_id: 0,
        parameter: "ram",
        value: 700_000_000,
        count: 9,
        text: "instance 0 uses too much ram: 667.6 MiB",
      }),
    );
  return all.reverse();
}

export function monitoringOf(unit, query) {
  const till = Date.now();
  const asked = Date.parse(query.get("datetime_from") ?? "");
  const from = Number.isNaN(asked) ? till - 60 * MINUTE : asked;
  return {
    datetime_from: iso(from),
    datetime_till: iso(till),
    nodes: unit.nodes.map((node, n) => ({
      node_id: node.node_id,
      max_dmips: 20_000,
      total_ram: 2 ** 33,
      partitions: { aos: 2 ** 35 },
      limits: [{ parameter: "cpu", raise: 6000, fall: 5000, quota: null }],
      points: points(from, till, n, 1),
    })),
    instances: unit.running.flatMap((entry, n) =>
      entry.instances.map((instance) => ({
        service: entry.service,
        subject: entry.subject,
        instance_id: instance.instance_id,
        node_id: instance.node_id ?? unit.nodes[0]?.node_id ?? "",
        limits: [{ parameter: "ram", raise: 600_000_000, fall: 500_000_000, quota: 900_000_000 }],
        points: points(from, till, n + instance.instance_id, 0.25),
      })),
    ),
    alerts: alertsOf(unit).filter((each) => each.tag.endsWith("QuotaAlert")),
  };
}

export function narrowed(alerts, query) {
  const is = (name, of) => !query.get(name) || query.get(name) === of;
  return alerts.filter((each) => is("state", each.state) && is("tag", each.tag));
}
