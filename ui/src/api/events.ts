import type { QueryClient, QueryKey } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import type { ChangeEvent, ChangeTopic } from "./types";

/** How the link to the server is. */
export type Link =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "lost"; since: number; retryAt: number };

const TOPICS: ChangeTopic[] = [
  "unit",
  "bundle",
  "service",
  "subject",
  "unit_model",
  "claim_code",
  "monitoring",
  "alert",
  "log",
  "resync",
];
const GATHER_MS = 150;
const FIRST_RETRY_MS = 400;
const LONGEST_RETRY_MS = 15_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Whether a query has to be read again after this change. */
export function concerns(key: QueryKey, change: ChangeEvent): boolean {
  const [kind, id, part] = key;
  if (kind === "me") return false;
  if (change.topic === "resync" || kind === "audit") return true;
  const itself = kind === change.topic && (id === "list" || id === change.id || !UUID.test(String(id)));
  switch (change.topic) {
    case "unit":
      return (
        itself ||
        ((kind === "service" || kind === "subject" || kind === "unit_model") && part === "units") ||
        counts(kind, change)
      );
    case "subject":
      return itself || kind === "unit" || kind === "service";
    case "service":
      return itself || kind === "subject" || (kind === "unit" && (part === "services" || part === "explain"));
    case "bundle":
      return itself || kind === "service";
    case "unit_model":
      return itself || (kind === "unit" && part === "self");
    case "claim_code":
    case "monitoring":
    case "log":
      return itself;
    case "alert":
      return itself || (kind === "monitoring" && (id === change.id || !UUID.test(String(id))));
  }
}

// Lists that count Units only have to be read again when Units come and go or get something else, not at each status.
function counts(kind: unknown, change: ChangeEvent): boolean {
  const few = change.action === "created" || change.action === "deleted" || change.action === "desired";
  return few && (kind === "service" || kind === "subject" || kind === "unit_model");
}

/**
 * Keeps one event stream open and makes queries read again what changed. Changes are gathered for a moment, and a
 * query that is being read is left to finish first, so a storm of changes costs a few reads and loses none.
 */
export class Events {
  #link: Link = { state: "connecting" };
  #source: EventSource | undefined;
  #pending: ChangeEvent[] = [];
  #gather: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #wait = FIRST_RETRY_MS;
  #missed = false;
  #owed = new Set<string>();
  #listeners = new Set<() => void>();
  readonly #client: QueryClient;
  readonly #open: () => EventSource;

  constructor(client: QueryClient, open: () => EventSource = () => new EventSource("/api/v11/events/")) {
    this.#client = client;
    this.#open = open;
  }

  start(): () => void {
    const wake = () => this.#link.state === "lost" && this.retryNow();
    window.addEventListener("online", wake);
    document.addEventListener("visibilitychange", wake);
    // A page that the browser keeps for "back" must not keep its connection: a browser has only few to one host.
    const leave = () => {
      clearTimeout(this.#retry);
      this.#source?.close();
      this.#missed = true;
    };
    const back = (event: PageTransitionEvent) => event.persisted && this.#connect();
    window.addEventListener("pagehide", leave);
    window.addEventListener("pageshow", back);
    this.#connect();
    return () => {
      window.removeEventListener("pagehide", leave);
      window.removeEventListener("pageshow", back);
      window.removeEventListener("online", wake);
      document.removeEventListener("visibilitychange", wake);
      this.#source?.close();
      clearTimeout(this.#gather);
      clearTimeout(this.#retry);
    };
  }

  /** The link as it is now; the same object until it changes. */
  readonly link = (): Link => this.#link;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Tries again at once. */
  retryNow(): void {
    clearTimeout(this.#retry);
    this.#connect();
  }

  #become(link: Link): void {
    this.#link = link;
    for (const listener of this.#listeners) listener();
  }

  #connect(): void {
    this.#source?.close();
    const source = this.#open();
    this.#source = source;
    source.onopen = () => {
      this.#wait = FIRST_RETRY_MS;
      this.#become({ state: "live" });
      if (this.#missed) this.#take({ topic: "resync", action: "updated", at: "" });
      this.#missed = false;
    };
    source.onerror = () => {
      // The browser's own retry neither backs off nor tells when; so the source is closed and opened anew by us.
      source.close();
      this.#missed = true;
      const since = this.#link.state === "lost" ? this.#link.since : Date.now();
      this.#become({ state: "lost", since, retryAt: Date.now() + this.#wait });
      // Reading who is signed in tells a lost session from a lost server.
      void this.#client.invalidateQueries({ queryKey: ["me"] });
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.#connect(), this.#wait);
      this.#wait = Math.min(this.#wait * 2, LONGEST_RETRY_MS);
    };
    for (const topic of TOPICS) {
      source.addEventListener(topic, (event) => {
        try {
          this.#take({ ...(JSON.parse((event as MessageEvent<string>).data) as ChangeEvent), topic });
        } catch {
          this.#take({ topic: "resync", action: "updated", at: "" });
        }
      });
    }
  }

  #take(change: ChangeEvent): void {
    this.#pending.push(change);
    this.#gather ??= setTimeout(() => this.#flush(), GATHER_MS);
  }

  #flush(): void {
    this.#gather = undefined;
    const changes = this.#pending;
    this.#pending = [];
    const owed = this.#owed;
    this.#owed = new Set();
    const due = this.#client
      .getQueryCache()
      .findAll()
      .filter(
        (query) => owed.has(query.queryHash) || changes.some((change) => concerns(query.queryKey, change)),
      );
    // What is being read may be answered from before the change: it is read once more when it is done.
    for (const query of due) if (query.state.fetchStatus === "fetching") this.#owed.add(query.queryHash);
    const now = new Set(due.map((query) => query.queryHash).filter((hash) => !this.#owed.has(hash)));
    void this.#client.invalidateQueries({ predicate: (query) => now.has(query.queryHash) });
    if (this.#owed.size > 0) this.#gather = setTimeout(() => this.#flush(), GATHER_MS);
  }
}

let events: Events | undefined;

/** Makes the one event stream of this page. */
export function makeEvents(client: QueryClient): Events {
  events ??= new Events(client);
  return events;
}

const none: Link = { state: "connecting" };
const never = () => () => {};

/** The link to the server, for parts that show it. */
export function useLink(): Link {
  return useSyncExternalStore(events?.subscribe ?? never, events?.link ?? (() => none));
}
