import type { TimetableDay, UpdateSchedule } from "~/api/types";

export const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/** A schedule as a person types it. */
export interface Typed {
  kind: "unset" | UpdateSchedule["type"];
  /** Hours after which a waiting update is given up; empty: never. */
  hours: string;
  /** The slots of each day, Monday first: `22:00-24:00, 00:00-05:00`. */
  days: string[];
}

/** What is set now, as it would be typed. */
export function typed(schedule: UpdateSchedule | null | undefined): Typed {
  const slots = (number: number) =>
    (schedule?.timetable ?? [])
      .filter((day) => day.day_of_week === number)
      .flatMap((day) => day.time_slots.map((slot) => `${slot.start}-${slot.end}`))
      .join(", ");
  return {
    kind: schedule?.type ?? "unset",
    hours: schedule?.ttl == null ? "" : String(schedule.ttl / 3600),
    days: DAYS.map((_, at) => slots(at + 1)),
  };
}

const TIME = /^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$|^24:00(:00)?$/;

/** What is wrong with the slots of one day, or nothing. */
export function wrongSlots(text: string): string | null {
  for (const slot of text.split(",").map((each) => each.trim())) {
    if (slot === "") continue;
    const [start, end, more] = slot.split("-").map((each) => each.trim());
    if (!start || !end || more !== undefined || !TIME.test(start) || !TIME.test(end))
      return "Write slots as 22:00-24:00, with a comma between two.";
    if (end <= start) return "A slot ends after it starts; over midnight it is two slots on two days.";
  }
  return null;
}

function day(text: string, number: number): TimetableDay[] {
  const time_slots = text
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "")
    .map((each) => {
      const [start = "", end = ""] = each.split("-").map((part) => part.trim());
      return { start, end };
    });
  return time_slots.length === 0 ? [] : [{ day_of_week: number, time_slots }];
}

/** Reads what was typed; `null` says nothing. Or says what is wrong. */
export function read(from: Typed): { schedule: UpdateSchedule | null } | { why: string } {
  if (from.kind === "unset") return { schedule: null };
  const schedule: UpdateSchedule = { type: from.kind };
  if (from.hours.trim() !== "") {
    const hours = Number(from.hours.trim());
    if (!Number.isFinite(hours) || hours * 3600 < 60 || hours > 8760)
      return { why: "Hours to wait: a number from 0.1 to 8760, or empty." };
    schedule.ttl = Math.round(hours * 3600);
  }
  if (from.kind === "timetable") {
    for (const [at, text] of from.days.entries()) {
      const why = wrongSlots(text);
      if (why) return { why: `${DAYS[at]}: ${why}` };
    }
    schedule.timetable = from.days.flatMap((text, at) => day(text, at + 1));
    if (schedule.timetable.length === 0) return { why: "A timetable needs at least one slot." };
  }
  return { schedule };
}

/** A schedule in words, line by line. */
export function told(schedule: UpdateSchedule | null | undefined, none: string): string[] {
  if (!schedule) return [none];
  const lines: string[] = [];
  if (schedule.type === "force") lines.push("At once");
  if (schedule.type === "trigger") lines.push("When somebody on the Unit starts it");
  for (const each of schedule.timetable ?? []) {
    const slots = each.time_slots.map((slot) => `${slot.start}–${slot.end}`).join(", ");
    lines.push(`${DAYS[each.day_of_week - 1] ?? "?"} ${slots}`);
  }
  if (schedule.ttl != null) lines.push(`given up after ${Math.round((schedule.ttl / 3600) * 10) / 10} h`);
  return lines;
}
