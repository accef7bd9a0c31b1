import type { Overrides } from "~/api/types";

/** What a person typed for one service of an assignment. Empty means: as the version's configuration says. */
export interface Typed {
  instances: string;
  labels: string[];
  priority: string;
  independent: boolean;
}

export const untouched: Typed = { instances: "", labels: [], priority: "", independent: false };

/** What is set now, as it would be typed. */
export function typed(overrides: Overrides): Typed {
  return {
    instances: overrides.num_instances == null ? "" : String(overrides.num_instances),
    labels: overrides.labels ?? [],
    priority: overrides.priority == null ? "" : String(overrides.priority),
    independent: overrides.independent ?? false,
  };
}

function whole(text: string, least: number, most: number): number | null {
  if (!/^\d+$/.test(text.trim())) return null;
  const value = Number(text.trim());
  return value >= least && value <= most ? value : null;
}

/** Reads what was typed, or says which field is wrong and why. */
export function read(
  from: Typed,
): { overrides: Overrides } | { wrong: "instances" | "priority"; why: string } {
  const overrides: Overrides = {};
  if (from.instances.trim() !== "") {
    const value = whole(from.instances, 1, 1000);
    if (value === null) return { wrong: "instances", why: "A whole number from 1 to 1000, or empty." };
    overrides.num_instances = value;
  }
  if (from.labels.length > 0) overrides.labels = from.labels;
  if (from.priority.trim() !== "") {
    const value = whole(from.priority, 0, 999_999);
    if (value === null) return { wrong: "priority", why: "A whole number from 0 to 999999, or empty." };
    overrides.priority = value;
  }
  if (from.independent) overrides.independent = true;
  return { overrides };
}

/** The overrides in words; nothing for none. */
export function told(overrides: Overrides): string[] {
  const out: string[] = [];
  if (overrides.num_instances != null) {
    out.push(`${overrides.num_instances} ${overrides.num_instances === 1 ? "instance" : "instances"}`);
  }
  if (overrides.priority != null) out.push(`priority ${overrides.priority}`);
  if (overrides.independent) out.push("may fail alone");
  for (const label of overrides.labels ?? []) out.push(`label ${label}`);
  return out;
}
