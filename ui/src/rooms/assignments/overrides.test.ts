import { describe, expect, it } from "vitest";
import { read, told, typed, untouched } from "./overrides";

describe("overrides of an assignment", () => {
  it("leaves out what was left empty, so that the version's configuration holds", () => {
    expect(read(untouched)).toEqual({ overrides: {} });
    expect(read({ ...untouched, instances: " 3 ", labels: ["gpu"], priority: "0" })).toEqual({
      overrides: { num_instances: 3, labels: ["gpu"], priority: 0 },
    });
  });

  it.each(["0", "1001", "1.5", "-1", "many"])("refuses %s instances and says why", (instances) => {
    expect(read({ ...untouched, instances })).toMatchObject({ wrong: "instances" });
  });

  it("shows what is set as it would be typed and told", () => {
    const set = { num_instances: 2, labels: ["gpu", "left"], priority: 7, independent: true };
    expect(read(typed(set))).toEqual({ overrides: set });
    expect(told(set)).toEqual(["2 instances", "priority 7", "may fail alone", "label gpu", "label left"]);
    expect(told({})).toEqual([]);
  });
});
