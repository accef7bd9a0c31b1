/** What is drawn of a chart, as plain numbers: easy to check, and nothing of the page. */

/** A moment in milliseconds since 1970, and a value. */
export type Spot = [at: number, value: number];

/** The value that holds at a moment: points are told when something changes, so the last one before it. */
export function valueAt(spots: Spot[], at: number): number | null {
  let low = 0;
  let high = spots.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((spots[middle]?.[0] ?? 0) <= at) low = middle + 1;
    else high = middle;
  }
  return spots[low - 1]?.[1] ?? null;
}

/** Points further apart than this are not joined: nothing was told in between. */
export const HOLDS_MS = 25 * 60_000;

/** The steps of a line within a span of time; a new part begins where nothing was told for too long. */
export function steps(spots: Spot[], from: number, till: number): Spot[][] {
  const parts: Spot[][] = [];
  let part: Spot[] = [];
  let last: Spot | undefined;
  for (const [at, value] of spots) {
    if (at > till) break;
    if (last && at - last[0] > HOLDS_MS) {
      part.push([Math.min(till, Math.max(from, last[0] + HOLDS_MS)), last[1]]);
      parts.push(part);
      part = [];
    } else if (last) {
      part.push([Math.max(from, at), last[1]]);
    }
    part.push([Math.max(from, at), value]);
    last = [at, value];
  }
  if (last) part.push([Math.max(from, Math.min(till, last[0] + HOLDS_MS)), last[1]]);
  parts.push(part);
  return parts.filter((each) => each.length > 0 && (each.at(-1)?.[0] ?? 0) >= from);
}

/** A round number that is not below `value`: 1, 2 or 5 with noughts; of bytes with powers of 1024. */
export function ceiling(value: number, binary: boolean): number {
  if (value <= 0) return 1;
  const base = binary ? 1024 ** Math.floor(Math.log(value) / Math.log(1024)) : 1;
  const scaled = value / base;
  const power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= scaled) ?? 10;
  return step * power * base;
}

const MINUTE = 60_000;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880].map((minutes) => minutes * MINUTE);

/** Round moments within a span, at most `most` of them. */
export function ticks(from: number, till: number, most: number): number[] {
  const step = TICKS.find((each) => (till - from) / each <= most) ?? TICKS.at(-1) ?? MINUTE;
  const offset = new Date(from).getTimezoneOffset() * MINUTE;
  const out: number[] = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= till; at += step) out.push(at);
  return out;
}

/** Bytes a second, from counters of a day: between two points, and nothing where the counter began anew. */
export function rates(spots: Spot[]): Spot[] {
  const out: Spot[] = [];
  for (let n = 1; n < spots.length; n += 1) {
    const [before, from] = spots[n - 1] ?? [0, 0];
    const [at, to] = spots[n] ?? [0, 0];
    if (at <= before) continue;
    // A step holds from its beginning on, so the rate stands where it began.
    out.push([before, to < from ? 0 : ((to - from) * 1000) / (at - before)]);
  }
  const last = spots.at(-1);
  if (last && out.length > 0) out.push([last[0], out.at(-1)?.[1] ?? 0]);
  return out;
}
