import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { concerns, Events } from "./events";
import type { ChangeEvent, ChangeTopic } from "./types";

const UNIT = "0192f0aa-0000-7000-8000-000000000001";
const OTHER = "0192f0aa-0000-7000-8000-000000000002";
const change = (
  topic: ChangeTopic,
  action: ChangeEvent["action"] = "status",
  id: string | null = UNIT,
): ChangeEvent => ({
  topic,
  action,
  id,
  at: "",
});

class Source {
  static last: Source;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  closed = false;
  heard = new Map<string, (event: { data: string }) => void>();
  constructor() {
    Source.last = this;
  }
  addEventListener(name: string, hear: (event: { data: string }) => void) {
    this.heard.set(name, hear);
  }
  close() {
    this.closed = true;
  }
  say(event: ChangeEvent) {
    this.heard.get(event.topic)?.({ data: JSON.stringify(event) });
  }
}

describe("which queries a change concerns", () => {
  it.each([
    [["unit", UNIT, "self", {}], change("unit"), true],
    [["unit", OTHER, "self", {}], change("unit"), false],
    [["unit", "vehicle-7", "self", {}], change("unit"), true],
    [["unit", "list", {}], change("unit"), true],
    [["service", "list", {}], change("unit", "status"), false],
    [["service", "list", {}], change("unit", "desired"), true],
    [["subject", OTHER, "units", {}], change("unit", "link"), true],
    [["unit", UNIT, "services", {}], change("subject", "updated", OTHER), true],
    [["me"], change("resync", "updated", null), false],
    [["claim_code", "list", {}], change("resync", "updated", null), true],
    [["audit", "list", {}], change("subject", "created", OTHER), true],
  ])("%j %j: %s", (key, event, expected) => {
    expect(concerns(key, event)).toBe(expected);
  });
});

describe("the event stream", () => {
  let client: QueryClient;
  let events: Events;
  let stop: () => void;

  beforeEach(() => {
    vi.useFakeTimers();
    client = new QueryClient({
      defaultOptions: { queries: { staleTime: Number.POSITIVE_INFINITY, retry: false } },
    });
    events = new Events(client, () => new Source() as unknown as EventSource);
    stop = events.start();
    Source.last.onopen?.();
  });
  afterEach(() => {
    stop();
    client.clear();
    vi.useRealTimers();
  });

  it("reads once for many changes that come together", async () => {
    const read = vi.fn(async () => 1);
    new QueryObserver(client, { queryKey: ["unit", UNIT, "self", {}], queryFn: read }).subscribe(() => {});
    await vi.advanceTimersByTimeAsync(10);
    for (let n = 0; n < 20; n += 1) Source.last.say(change("unit"));
    await vi.advanceTimersByTimeAsync(1000);
    expect(read).toHaveBeenCalledTimes(2);
  });

  it("reads again what was being read while the change came", async () => {
    const read = vi.fn(() => new Promise((done) => setTimeout(() => done(1), 400)));
    new QueryObserver(client, { queryKey: ["unit", "list", {}], queryFn: read }).subscribe(() => {});
    Source.last.say(change("unit"));
    await vi.advanceTimersByTimeAsync(5000);
    expect(read).toHaveBeenCalledTimes(2);
  });

  it("says when the link is lost, comes back by itself and reads everything again", async () => {
    const read = vi.fn(async () => 1);
    new QueryObserver(client, { queryKey: ["service", "list", {}], queryFn: read }).subscribe(() => {});
    await vi.advanceTimersByTimeAsync(10);
    Source.last.onerror?.();
    expect(events.link().state).toBe("lost");
    const before = Source.last;
    await vi.advanceTimersByTimeAsync(1100);
    expect(before.closed).toBe(true);
    expect(Source.last).not.toBe(before);
    Source.last.onopen?.();
    await vi.advanceTimersByTimeAsync(500);
    expect(events.link().state).toBe("live");
    expect(read).toHaveBeenCalledTimes(2);
  });
});
