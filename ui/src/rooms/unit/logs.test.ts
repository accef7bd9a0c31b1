import { describe, expect, it } from "vitest";
import { named, pieces } from "./Logs";

describe("a line of a log", () => {
  it("has a time, a source and what was said", () => {
    expect(pieces("2026-01-01T00:00:00Z [a:b:0 stderr] hello [x]")).toEqual({
      at: "2026-01-01T00:00:00Z",
      source: "a:b:0 stderr",
      said: "hello [x]",
    });
    expect(pieces("2026-01-01T00:00:00Z [kernel] ")).toEqual({
      at: "2026-01-01T00:00:00Z",
      source: "kernel",
      said: "",
    });
    expect(pieces("# a remark")).toEqual({ said: "# a remark" });
  });

  it("shows names for ids that are known", () => {
    const names = new Map([
      ["id-1", "hello"],
      ["id-2", "home"],
    ]);
    expect(named("id-1:id-2:0 stderr", names)).toBe("hello:home:0 stderr");
    expect(named("kernel", names)).toBe("kernel");
  });
});
