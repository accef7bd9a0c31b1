import { describe, expect, it } from "vitest";
import type { UnitInstance, UnitSubjectService } from "~/api/types";
import { instanceState, serviceState } from "./phase";

const instance = (run_state: string, message?: string): UnitInstance =>
  ({
    instance_id: 0,
    run_state,
    version: "1.0.0",
    error: message === undefined ? null : { aos_code: 1, exit_code: 0, message },
  }) as UnitInstance;

const service = (instances: UnitInstance[], wanted = instances.length): UnitSubjectService =>
  ({
    desired_version: "1.0.0",
    installed_version: "1.0.0",
    num_instances: wanted,
    instances,
  }) as unknown as UnitSubjectService;

describe("an instance that was meant to end", () => {
  it("is shown as completed, and one that rests as inactive", () => {
    expect(instanceState(instance("inactive"))).toEqual({ tone: "good", word: "Completed" });
    expect(instanceState(instance("inactive", "the Unit was offline")).word).toBe("Inactive");
    expect(instanceState(instance("active")).word).toBe("Active");
  });

  it("counts for its service as one that is as it shall be", () => {
    const [done, runs, rests] = [
      instance("inactive"),
      instance("active"),
      instance("inactive", "its Node is paused"),
    ];
    expect(serviceState(service([done]))).toEqual({ tone: "good", word: "Completed" });
    expect(serviceState(service([done, done])).word).toBe("2 completed");
    expect(serviceState(service([done, runs])).word).toBe("1 active, 1 completed");
    expect(serviceState(service([runs])).word).toBe("Active");
    expect(serviceState(service([done, rests])).tone).toBe("busy");
    expect(serviceState(service([done], 2)).word).toBe("1 of 2 active or completed");
  });
});
