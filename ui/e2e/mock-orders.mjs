// The mock's side of what is ordered of a Unit beside services: Nodes, unit configurations, schedules, variables,
// Subjects. A Unit follows an order after a moment, as a real one does.
import { randomUUID } from "node:crypto";
import { audit, change, world } from "./mock-world.mjs";

const STEP_MS = Number(process.env.MOCK_STEP_MS ?? 900);
const now = () => new Date().toISOString();
const whole = (items) => ({ items, total: items.length, offset: 0 });
const env = new Map();

function later(unit, act) {
  setTimeout(() => {
    act();
    change("unit", "status", unit.id);
  }, STEP_MS);
}

export function modelOf(unit) {
  return world.models.find((each) => each.id === unit.unit_model?.id);
}

/** The unit configuration of a Unit: wanted and actual. */
export function order(unit) {
  const own = unit.ordered_config ?? null;
  const wanted = own ?? modelOf(unit)?.ordered ?? null;
  const config = unit.installed_unit_config;
  const failed = config?.state === "failed" ? { version: config.version, error: config.error } : null;
  const installed = unit.config_in_force ?? (config?.state === "installed" ? config.version : null);
  return {
    wanted,
    ordered_for: wanted === null ? null : own ? "unit" : "model",
    installed,
    failed,
    progress:
      wanted === null
        ? "none"
        : failed?.version === wanted
          ? "failed"
          : installed === wanted
            ? "installed"
            : "waiting",
  };
}

function follow(unit) {
  later(unit, () => {
    const { wanted } = order(unit);
    if (wanted) unit.installed_unit_config = { version: wanted, state: "installed", error: null };
  });
}

export const orderRoutes = (find, raise, Refused) => {
  const forward = (unit, version) => {
    const { installed } = order(unit);
    if (installed && installed.localeCompare(version, "en", { numeric: true }) > 0)
      throw new Refused(
        409,
        `unit configuration ${version} would be a step back: Unit ${unit.system_uid} has ${installed} in force, and a Unit refuses to go back`,
        "store the content you want under a higher version and order that",
      );
  };
  const schedules = (unit) => {
    const own = unit.schedules ?? {};
    const of_model = modelOf(unit)?.schedules ?? {};
    const in_force = {};
    for (const part of ["sota", "fota"]) {
      const said = own[part] ?? of_model[part];
      if (said) in_force[part] = said;
    }
    return { own, of_model, in_force };
  };
  return [
    [
      "PATCH",
      "/units/{id}/nodes/{node}/",
      ([id, name], _, body) => {
        const unit = find.unit(id);
        const node = unit.nodes.find((each) => each.node_id === name) ?? raise("Node");
        node.wanted_state = body.wanted_state;
        audit(body.wanted_state === "paused" ? "node.pause" : "node.resume", `unit:${unit.id}`, name);
        change("unit", "desired", unit.id);
        later(unit, () => {
          node.state = body.wanted_state;
        });
        return node;
      },
    ],
    ["GET", "/units/{id}/unit-config/", ([id]) => order(find.unit(id))],
    [
      "PUT",
      "/units/{id}/unit-config/",
      ([id], _, body) => {
        const unit = find.unit(id);
        forward(unit, body.version);
        unit.ordered_config = body.version;
        change("unit", "desired", unit.id);
        follow(unit);
        return order(unit);
      },
    ],
    [
      "DELETE",
      "/units/{id}/unit-config/",
      ([id]) => {
        const unit = find.unit(id);
        unit.ordered_config = null;
        change("unit", "desired", unit.id);
      },
    ],
    ["GET", "/units/{id}/update-schedule/", ([id]) => schedules(find.unit(id))],
    [
      "PUT",
      "/units/{id}/update-schedule/",
      ([id], _, body) => {
        const unit = find.unit(id);
        unit.schedules = body;
        change("unit", "desired", unit.id);
        return schedules(unit);
      },
    ],
    [
      "GET",
      "/units/{id}/env-vars/",
      ([id], q) =>
        whole(
          (env.get(find.unit(id).id) ?? []).map((each) => ({
            ...each,
            value: q.get("reveal") === "true" ? each.value : null,
          })),
        ),
    ],
    [
      "POST",
      "/units/{id}/env-vars/",
      ([id], _, body) => {
        const unit = find.unit(id);
        const list = env.get(unit.id) ?? [];
        env.set(unit.id, list);
        const service = body.service ? find.service(body.service) : null;
        for (const { name, value, ttl } of body.variables) {
          const made = {
            id: randomUUID(),
            service: service && { id: service.id, codename: service.codename, title: service.title },
            subject: null,
            instance_id: body.instance_id ?? null,
            name,
            value,
            expires_at: ttl ? new Date(Date.now() + ttl * 1000).toISOString() : null,
            created_by: "user:owner",
            created_at: now(),
            state: "waiting_for_unit",
            instances: [],
          };
          list.push(made);
          later(unit, () => {
            made.state = "set";
          });
        }
        change("unit", "desired", unit.id);
        return [201, whole(list.map((each) => ({ ...each, value: null })))];
      },
    ],
    [
      "DELETE",
      "/units/{id}/env-vars/{variable}/",
      ([id, variable]) => {
        const unit = find.unit(id);
        env.set(
          unit.id,
          (env.get(unit.id) ?? []).filter((each) => each.id !== variable),
        );
        change("unit", "desired", unit.id);
      },
    ],
    [
      "GET",
      "/units/{id}/subjects/",
      ([id]) => {
        const unit = find.unit(id);
        const mine = world.subjects
          .filter((each) => each.units.includes(unit.id))
          .map((each) => ({
            id: each.id,
            label: each.label,
            reported_as: null,
            reported: false,
            member: true,
            service_count: each.services.length,
          }));
        const known = world.subjects.find((each) => each.reported_as === "driver-7");
        const driver = {
          id: known?.id ?? null,
          label: known?.label ?? "driver-7",
          reported_as: "driver-7",
          reported: true,
          member: false,
          service_count: known?.services.length ?? 0,
        };
        return whole([...mine, driver]);
      },
    ],
    [
      "GET",
      "/units/{id}/why/",
      ([id]) => {
        const unit = find.unit(id);
        const instances = unit.running.flatMap((entry) =>
          entry.instances
            .filter((each) => each.run_state !== "active")
            .map((each) => ({
              service: entry.service,
              subject: entry.subject,
              instance_id: each.instance_id,
              desired: true,
              run_state: each.run_state,
              node_id: each.node_id,
              reported: each.error,
              waits_for: each.error?.message ?? `the Unit reports it ${each.run_state}`,
              nodes: unit.nodes.map((node) => {
                const lacks = entry.labels.filter((label) => !node.labels.includes(label));
                return {
                  node_id: node.node_id,
                  excluded_by: lacks.length > 0 ? "labels" : null,
                  text: lacks.length > 0 ? `it has no label ${lacks.join(", ")}` : "it may be here",
                };
              }),
            })),
        );
        return { system_uid: unit.system_uid, update: [], instances };
      },
    ],
    [
      "PUT",
      "/unit-models/{id}/unit-config/",
      ([id], _, body) => {
        const model = find.model(id);
        const units = world.units.filter((each) => each.unit_model?.id === id);
        for (const unit of units) forward(unit, body.version);
        model.ordered = body.version;
        for (const unit of units) {
          unit.ordered_config = null;
          change("unit", "desired", unit.id);
          follow(unit);
        }
        change("unit_model", "updated", id);
        return find.shown(model);
      },
    ],
    [
      "GET",
      "/unit-models/{id}/units/",
      ([id]) =>
        whole(
          world.units
            .filter((each) => each.unit_model?.id === id)
            .map((each) => ({
              id: each.id,
              system_uid: each.system_uid,
              title: each.title,
              unit_config: order(each),
            })),
        ),
    ],
    ["GET", "/unit-models/{id}/update-schedule/", ([id]) => find.model(id).schedules ?? {}],
    [
      "PUT",
      "/unit-models/{id}/update-schedule/",
      ([id], _, body) => {
        find.model(id).schedules = body;
        change("unit_model", "updated", id);
        return body;
      },
    ],
  ];
};
