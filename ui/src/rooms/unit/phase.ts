import type {
  DesiredState,
  ReportedError,
  Unit,
  UnitInstance,
  UnitItem,
  UnitSubjectService,
  UpdatePhase,
} from "~/api/types";
import { bytes, clock, count } from "~/parts/time";
import { type Said, say } from "~/parts/tone";

/** Where a step of an update stands. */
export type StepState = "done" | "now" | "failed" | "ahead";
/** One step of the way from a desired state to a Unit that is as desired. */
export interface Step {
  id: string;
  name: string;
  state: StepState;
  note: string;
}
/** A part that failed, by name. */
export interface Fault {
  what: string;
  why: string;
}

const NAMES: [string, string][] = [
  ["sent", "Sent"],
  ["downloading", "Downloading"],
  ["pending", "Pending"],
  ["installing", "Installing"],
  ["waiting_for_active", "Waiting for active"],
  ["installed", "Installed"],
];
const PLACE: Partial<Record<UpdatePhase, number>> = {
  waiting_for_unit: 0,
  downloading: 1,
  pending: 2,
  installing: 3,
  waiting_for_active: 4,
  installed: 6,
};

/** The error of a part as a sentence. */
export function why(error: ReportedError | null | undefined): string {
  if (!error || (error.message === "" && error.aos_code === 0 && error.exit_code === 0))
    return "no reason was reported";
  const code = error.exit_code !== 0 ? ` (exit code ${error.exit_code})` : "";
  return `${error.message || `error ${error.aos_code}`}${code}`;
}

/** Whether an instance was meant to end, and has: it does not run, and nothing is wrong with it. */
export function isCompleted(instance: UnitInstance): boolean {
  return instance.run_state === "inactive" && !instance.error;
}

/** Whether an instance is as it shall be: it runs, or has completed. */
function isUp(instance: UnitInstance): boolean {
  return instance.run_state === "active" || isCompleted(instance);
}

/** How an instance is, in a word. */
export function instanceState(instance: UnitInstance): Said {
  return isCompleted(instance) ? { tone: "good", word: "Completed" } : say(instance.run_state);
}

/** Everything that failed on a Unit. */
export function faults(unit: Unit, items: UnitItem[], services: UnitSubjectService[]): Fault[] {
  const found: Fault[] = items
    .filter((item) => item.state === "failed")
    .map((item) => ({
      what: `${item.service?.title || item.item_id} ${item.version}`,
      why: why(item.error),
    }));
  for (const entry of services) {
    for (const instance of entry.instances) {
      if (instance.run_state !== "failed") continue;
      found.push({
        what: `${entry.service.title || entry.service.codename} instance ${instance.instance_id} on ${instance.node_id || "no Node"}`,
        why: why(instance.error),
      });
    }
  }
  const config = unit.installed_unit_config;
  if (config?.state === "failed")
    found.push({ what: `Unit configuration ${config.version}`, why: why(config.error) });
  return found;
}

function failedAt(unit: Unit, items: UnitItem[], services: UnitSubjectService[]): number {
  if (items.some((item) => item.state === "failed") || unit.installed_unit_config?.state === "failed")
    return 3;
  if (services.some((entry) => entry.instances.some((each) => each.run_state === "failed"))) return 4;
  return 4;
}

function sentNote(desired: DesiredState | null): string {
  if (!desired) return "";
  if (desired.acknowledged_at) return `acknowledged ${clock(desired.acknowledged_at)}`;
  if (desired.sent_at) return `sent ${clock(desired.sent_at)}, not acknowledged`;
  return "waits for the Unit";
}

/** How far the Unit is with fetching: by bytes while it tells them, else by items that are here. */
function fetchedNote(unit: Unit, here: number, wanted: number): string {
  const items = wanted > 0 ? `${here} of ${count(wanted, "item")} here` : "";
  const told = unit.download;
  if (!told || told.bytes_total === 0) return items;
  const percent = Math.floor((told.bytes_here / told.bytes_total) * 100);
  return `${percent} % of ${bytes(told.bytes_total)}${told.hindrance ? ", broken off" : ""}`;
}

/** The steps of the newest update of a Unit, as far as its reports tell. */
export function steps(
  unit: Unit,
  desired: DesiredState | null,
  items: UnitItem[],
  services: UnitSubjectService[],
): Step[] {
  const failed = unit.update_phase === "failed";
  const at = failed ? failedAt(unit, items, services) : (PLACE[unit.update_phase] ?? -1);
  const wanted = items.filter((item) => item.desired);
  const here = wanted.filter((item) => !["unknown", "downloading"].includes(item.state)).length;
  const ready = wanted.filter((item) => item.state === "installed").length;
  const due = services
    .filter((entry) => entry.desired_version)
    .reduce((sum, entry) => sum + entry.num_instances, 0);
  const active = services.flatMap((entry) => entry.instances).filter(isUp).length;
  const notes: Record<string, string> = {
    sent: sentNote(desired),
    downloading: fetchedNote(unit, here, wanted.length),
    installing: wanted.length > 0 ? `${ready} of ${count(wanted.length, "item")} ready` : "",
    waiting_for_active: due > 0 ? `${Math.min(active, due)} of ${count(due, "instance")} active` : "",
    installed: desired?.applied_at ? `since ${clock(desired.applied_at)}` : "",
  };
  return NAMES.map(([id, name], place) => ({
    id,
    name,
    state: place < at ? "done" : place > at ? "ahead" : failed ? "failed" : "now",
    note: place <= at ? (notes[id] ?? "") : "",
  }));
}

/** How one assigned service is on a Unit, in a word. */
export function serviceState(entry: UnitSubjectService): Said {
  const up = entry.instances.filter(isUp).length;
  const completed = entry.instances.filter(isCompleted).length;
  const failed = entry.instances.filter((each) => each.run_state === "failed").length;
  if (!entry.desired_version) {
    return entry.instances.length > 0 || entry.installed_version
      ? { tone: "busy", word: "Going away" }
      : { tone: "warn", word: "Not desired" };
  }
  if (failed > 0) return { tone: "bad", word: `${failed} failed` };
  const current = entry.instances.filter((each) => each.version === entry.desired_version && isUp(each));
  if (current.length >= entry.num_instances && entry.instances.length <= entry.num_instances) {
    return { tone: "good", word: upWord(up - completed, completed) };
  }
  if (entry.installed_version && entry.installed_version !== entry.desired_version) {
    return { tone: "busy", word: `Updating, ${current.length} of ${entry.num_instances}` };
  }
  const word =
    completed > 0
      ? `${up} of ${entry.num_instances} active or completed`
      : `${up} of ${entry.num_instances} active`;
  return { tone: "busy", word };
}

/** How many run and how many have completed, when all are as they shall be. */
function upWord(active: number, completed: number): string {
  if (completed === 0) return active === 1 ? "Active" : `${active} active`;
  if (active === 0) return completed === 1 ? "Completed" : `${completed} completed`;
  return `${active} active, ${completed} completed`;
}
