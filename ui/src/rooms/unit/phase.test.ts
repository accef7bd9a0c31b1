import { describe, expect, it } from "vitest";
import type { Unit, UnitInstance, UnitItem, UnitSubjectService, UpdatePhase } from "~/api/types";
import { faults, serviceState, steps } from "./phase";

const unit = (update_phase: UpdatePhase): Unit => ({
  id: "u",
  system_uid: "vehicle-7",
  title: "",
  status: "provisioned",
  online_status: "Online",
  update_phase,
  counts: {
    nodes: 1,
    nodes_connected: 1,
    instances: 0,
    instances_active: 0,
    instances_failed: 0,
    instances_desired: 0,
    subjects: 0,
  },
  created_at: "2026-01-01T00:00:00Z",
  updated_at: "2026-01-01T00:00:00Z",
});
const item = (state: string, over: Partial<UnitItem> = {}): UnitItem => ({
  item_id: "web",
  item_type: "service",
  version: "1.1.0",
  state,
  desired: true,
  changed_at: "2026-01-01T00:00:00Z",
  ...over,
});
const instance = (run_state: string, version = "1.1.0", over: Partial<UnitInstance> = {}): UnitInstance => ({
  instance_id: 0,
  version,
  run_state,
  node_id: "main",
  runtime_id: "crun",
  changed_at: "2026-01-01T00:00:00Z",
  ...over,
});
const entry = (instances: UnitInstance[], over: Partial<UnitSubjectService> = {}): UnitSubjectService => ({
  subject: { id: "s", label: "fleet" },
  service: { id: "w", codename: "web", title: "Web" },
  desired_version: "1.1.0",
  installed_version: "1.1.0",
  num_instances: 1,
  priority: 0,
  labels: [],
  instances,
  ...over,
});
const states = (of: ReturnType<typeof steps>) => of.map((step) => step.state).join(" ");

describe("steps of an update", () => {
  it.each([
    ["none", "ahead ahead ahead ahead ahead ahead"],
    ["waiting_for_unit", "now ahead ahead ahead ahead ahead"],
    ["downloading", "done now ahead ahead ahead ahead"],
    ["waiting_for_active", "done done done done now ahead"],
    ["installed", "done done done done done done"],
  ] as const)("in phase %s", (phase, expected) => {
    expect(states(steps(unit(phase), null, [], []))).toBe(expected);
  });

  it("names the step at which it failed and what failed there", () => {
    const broken = [item("failed", { error: { aos_code: 1, exit_code: 0, message: "digest differs" } })];
    expect(states(steps(unit("failed"), null, broken, []))).toBe("done done done failed ahead ahead");
    expect(faults(unit("failed"), broken, [])).toEqual([{ what: "web 1.1.0", why: "digest differs" }]);
    const crashed = [
      entry([instance("failed", "1.1.0", { error: { aos_code: 0, exit_code: 3, message: "it exited" } })]),
    ];
    expect(states(steps(unit("failed"), null, [], crashed))).toBe("done done done done failed ahead");
    expect(faults(unit("failed"), [], crashed)[0]?.why).toBe("it exited (exit code 3)");
  });

  it("counts what is here and what is active", () => {
    const told = steps(
      unit("downloading"),
      null,
      [item("pending"), item("downloading"), item("installed", { desired: false })],
      [],
    );
    expect(told[1]?.note).toBe("1 of 2 items here");
  });
});

describe("a service on a Unit", () => {
  it.each([
    ["all active", entry([instance("active")]), "good", "Active"],
    ["some start", entry([instance("activating")], { num_instances: 2 }), "busy", "0 of 2 active"],
    ["one failed", entry([instance("active"), instance("failed")]), "bad", "1 failed"],
    [
      "update under way",
      entry([instance("active", "1.0.0")], { installed_version: "1.0.0" }),
      "busy",
      "Updating, 0 of 1",
    ],
    ["scaled down, not gone yet", entry([instance("active"), instance("active")]), "busy", "2 of 1 active"],
    ["unassigned, still there", entry([instance("active")], { desired_version: null }), "busy", "Going away"],
    [
      "cannot be delivered",
      entry([], { desired_version: null, installed_version: null }),
      "warn",
      "Not desired",
    ],
  ])("%s", (_, given, tone, word) => {
    expect(serviceState(given)).toEqual({ tone, word });
  });
});
