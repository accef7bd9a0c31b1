import { useSyncExternalStore } from "react";

// One clock for the whole page: it ticks each second while somebody looks.
let now = Date.now();
const lookers = new Set<() => void>();
let ticking: ReturnType<typeof setInterval> | undefined;

function look(tick: () => void): () => void {
  lookers.add(tick);
  ticking ??= setInterval(() => {
    now = Date.now();
    for (const each of lookers) each();
  }, 1000);
  return () => {
    lookers.delete(tick);
    if (lookers.size === 0) {
      clearInterval(ticking);
      ticking = undefined;
    }
  };
}

/** The present, renewed each second, as milliseconds since 1970. */
export function useNow(): number {
  return useSyncExternalStore(look, () => now);
}

const UNITS: [number, string][] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
];

/** A length of time in one or two units: `4 s`, `12 min`, `3 h 20 min`, `2 d 4 h`. */
export function length(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  for (const [at, [size, name]] of UNITS.entries()) {
    if (whole < size) continue;
    const many = Math.floor(whole / size);
    const finer = UNITS[at + 1];
    const rest = finer ? Math.floor((whole % size) / finer[0]) : 0;
    return finer && rest > 0 && many < 10 ? `${many} ${name} ${rest} ${finer[1]}` : `${many} ${name}`;
  }
  return `${whole} s`;
}

/** How long ago, for people: `just now`, `8 s ago`, `in 3 h`. */
export function ago(then: string, at: number): string {
  const seconds = (at - Date.parse(then)) / 1000;
  if (Number.isNaN(seconds)) return "unknown";
  if (seconds < -1.5) return `in ${length(-seconds)}`;
  if (seconds < 2) return "just now";
  return `${length(seconds)} ago`;
}

const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const DAY = new Intl.DateTimeFormat(undefined, {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
});

/** Date and time in the reader's own zone. */
export const full = (at: string | number) => FULL.format(new Date(at));
/** Time of day to the second. */
export const clock = (at: string | number) => CLOCK.format(new Date(at));
/** Day in words. */
export const day = (at: string | number) => DAY.format(new Date(at));

/** Bytes for people, in binary units. */
export function bytes(many: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = many;
  let at = 0;
  while (value >= 1024 && at < names.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${names[at]}`;
}

/** `1 Unit`, `3 Units`. */
export function count(many: number, one: string, more = `${one}s`): string {
  return `${many} ${many === 1 ? one : more}`;
}

/** Who did something, for people: users by their name alone. */
export function who(actor: string): string {
  return actor.replace(/^user:/, "");
}
