import { expect, test } from "vitest";
import { read, told, typed, wrongSlots } from "./schedule";

const night = {
  type: "timetable" as const,
  ttl: 7200,
  timetable: [
    {
      day_of_week: 1,
      time_slots: [
        { start: "00:00", end: "05:00" },
        { start: "22:00", end: "24:00" },
      ],
    },
    { day_of_week: 7, time_slots: [{ start: "08:00", end: "18:30" }] },
  ],
};

test("what is set can be typed and read again", () => {
  for (const schedule of [null, { type: "force" as const }, { type: "trigger" as const, ttl: 3600 }, night])
    expect(read(typed(schedule))).toEqual({ schedule });
});

test("impossible slots are refused while one types", () => {
  for (const text of [
    "22-24",
    "22:00",
    "25:00-26:00",
    "22:00-02:00",
    "08:00-08:00",
    "a-b",
    "08:00-09:00-10:00",
  ])
    expect(wrongSlots(text), text).not.toBeNull();
  for (const text of ["", "08:00-09:00", "00:00-05:00, 22:00-24:00", "08:00:30-09:00"])
    expect(wrongSlots(text), text).toBeNull();
  const monday = { ...typed(null), kind: "timetable" as const, days: ["x", "", "", "", "", "", ""] };
  expect(read(monday)).toEqual({ why: expect.stringContaining("Monday") });
  expect(read({ ...monday, days: ["", "", "", "", "", "", ""] })).toHaveProperty("why");
  expect(read({ ...typed({ type: "force" }), hours: "soon" })).toHaveProperty("why");
});

test("a schedule is told in words", () => {
  expect(told(null, "At once")).toEqual(["At once"]);
  expect(told(night, "")).toEqual([
    "Monday 00:00–05:00, 22:00–24:00",
    "Sunday 08:00–18:30",
    "given up after 2 h",
  ]);
});
