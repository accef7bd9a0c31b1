import { expect, test } from "vitest";
import { ceiling, HOLDS_MS, rates, type Spot, steps, ticks, valueAt } from "./chart";

const minute = 60_000;
const spots: Spot[] = [
  [0, 5],
  [10 * minute, 9],
  [20 * minute, 7],
];

test("a value holds until the next is told", () => {
  expect(valueAt(spots, -1)).toBeNull();
  expect(valueAt(spots, 0)).toBe(5);
  expect(valueAt(spots, 19 * minute)).toBe(9);
  expect(valueAt(spots, 99 * minute)).toBe(7);
  expect(valueAt([], 0)).toBeNull();
});

test("a line goes in steps, is cut at the left edge, and breaks where nothing was told", () => {
  expect(steps(spots, 5 * minute, 22 * minute)).toEqual([
    [
      [5 * minute, 5],
      [10 * minute, 5],
      [10 * minute, 9],
      [20 * minute, 9],
      [20 * minute, 7],
      [22 * minute, 7],
    ],
  ]);
  const parts = steps([...spots, [120 * minute, 1]], 0, 130 * minute);
  expect(parts).toHaveLength(2);
  expect(parts[0]?.at(-1)).toEqual([20 * minute + HOLDS_MS, 7]);
  expect(parts[1]).toEqual([
    [120 * minute, 1],
    [130 * minute, 1],
  ]);
  expect(steps([], 0, 1)).toEqual([]);
});

test("axes end in round numbers", () => {
  expect(ceiling(0, false)).toBe(1);
  expect(ceiling(7, false)).toBe(10);
  expect(ceiling(1200, false)).toBe(2000);
  expect(ceiling(3 * 1024 ** 3, true)).toBe(5 * 1024 ** 3);
  expect(ceiling(1024 ** 2, true)).toBe(1024 ** 2);
});

test("ticks are few and round", () => {
  const found = ticks(90_000, 90_000 + 60 * minute, 7);
  expect(found.length).toBeLessThanOrEqual(7);
  expect(found.every((at) => at % (10 * minute) === 0)).toBe(true);
});

test("a counter becomes a rate, and none where it began anew", () => {
  expect(
    rates([
      [0, 100],
      [1000, 300],
      [2000, 50],
    ]),
  ).toEqual([
    [0, 200],
    [1000, 0],
    [2000, 0],
  ]);
  expect(rates([[0, 1]])).toEqual([]);
});
