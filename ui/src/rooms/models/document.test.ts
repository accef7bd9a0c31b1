import { describe, expect, it } from "vitest";
import { check, higher, next } from "./document";

describe("a unit configuration as text", () => {
  it("names what is wrong", () => {
    expect(check("[]", null)).toEqual({ wrong: "It must be a JSON object." });
    expect(check("{}", null)).toMatchObject({ wrong: expect.stringContaining('"version"') });
    expect(check('{"version": "1.2.0"}', "1.10.0")).toMatchObject({
      wrong: expect.stringContaining("higher than 1.10.0"),
    });
    expect(check("{\n  nodes: 1\n}", null)).toMatchObject({ wrong: expect.stringMatching(/^Not JSON: /) });
  });

  it("takes a higher version", () => {
    expect(check('{"version": "1.10.0"}', "1.9.3")).toEqual({ value: { version: "1.10.0" } });
    expect(higher("2.0.0-rc.1", "1.0.0")).toBeNull();
  });

  it("begins the next version from the last one", () => {
    expect(JSON.parse(next({ version: "1.4.2", nodes: [] }, "1.4.2"))).toEqual({
      version: "1.5.0",
      nodes: [],
    });
    expect(check(next(null, null), null)).toHaveProperty("value");
  });
});
