import type { DeploymentBundle, ErrorBody } from "./types";

const BASE = "/api/v11";
// A page of another origin cannot add this header; the server asks for it with every write by session cookie.
const WRITE_HEADER = { "x-aos-request": "ui" };

/** What the server (or the way to it) refused: what failed, and what to do about it. */
export class Refusal extends Error {
  readonly status: number;
  readonly field: string | undefined;
  readonly hint: string | undefined;

  constructor(status: number, body: ErrorBody) {
    super(body.message);
    this.name = "Refusal";
    this.status = status;
    this.field = body.field ?? undefined;
    this.hint = body.hint ?? undefined;
  }
}

const unreachable = () =>
  new Refusal(0, {
    message: "The cloud did not answer.",
    hint: "Check the network, and that `aos cloud serve` is running. This page tries again by itself.",
  });

/** Values for a query string; absent and empty ones are left out. */
export type Query = Record<string, string | number | boolean | undefined>;

/** A path below `/api/v11`, its values percent-encoded. */
export function path(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  return parts.reduce(
    (out, part, at) => out + part + (at < values.length ? encodeURIComponent(String(values[at])) : ""),
    "",
  );
}

/** Where a path below `/api/v11` is, for links. */
export function address(at: string, query?: Query): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  return `${BASE}${at}${text === "" ? "" : `?${text}`}`;
}

/** Reads a refusal out of whatever came back: ours, FastAPI's `detail`, or no JSON at all. */
export function refusal(status: number, text: string): Refusal {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null) {
      if ("message" in body && typeof body.message === "string")
        return new Refusal(status, body as ErrorBody);
      if ("detail" in body && typeof body.detail === "string")
        return new Refusal(status, { message: body.detail });
    }
  } catch {
    // Not JSON: the status has to do.
  }
  if (status >= 502 && status <= 504) return unreachable();
  return new Refusal(status, {
    message: `The cloud answered with status ${status} and no explanation.`,
    hint: "Its log says more: look at the output of `aos cloud serve`.",
  });
}

let whenSignedOut: () => void = () => {};

/** Says what to do when the server no longer knows the session. */
export function onSignedOut(act: () => void): void {
  whenSignedOut = act;
}

async function request<T>(
  method: string,
  at: string,
  body?: unknown,
  query?: Query,
  signal?: AbortSignal,
): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (method !== "GET") Object.assign(headers, WRITE_HEADER);
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(address(at, query), {
      method,
      headers,
      credentials: "same-origin",
      cache: "no-store",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!answer.ok) {
    const failed = refusal(answer.status, await answer.text());
    if (failed.status === 401 && at !== "/sign-in/" && at !== "/owner-setup/") whenSignedOut();
    throw failed;
  }
  if (answer.status === 204) return undefined as T;
  return (await answer.json()) as T;
}

export const get = <T>(at: string, query?: Query, signal?: AbortSignal) =>
  request<T>("GET", at, undefined, query, signal);
export const post = <T>(at: string, body?: unknown) => request<T>("POST", at, body);
export const patch = <T>(at: string, body: unknown) => request<T>("PATCH", at, body);
export const put = <T>(at: string, body: unknown) => request<T>("PUT", at, body);
export const remove = (at: string) => request<void>("DELETE", at);

/** Uploads a signed bundle; `progress` hears how many bytes have gone. */
export function upload(
  file: File,
  check: boolean,
  progress: (sent: number, total: number) => void,
  signal: AbortSignal,
): Promise<DeploymentBundle> {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", address("/deployment-bundles/upload/", { check: check || undefined, wait: false }));
    for (const [name, value] of Object.entries(WRITE_HEADER)) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) =>
      progress(event.loaded, event.lengthComputable ? event.total : file.size);
    call.onload = () => {
      if (call.status >= 200 && call.status < 300) {
        resolve(JSON.parse(call.responseText) as DeploymentBundle);
        return;
      }
      if (call.status === 401) whenSignedOut();
      reject(refusal(call.status, call.responseText));
    };
    call.onerror = () => reject(unreachable());
    call.onabort = () => reject(new DOMException("Upload cancelled", "AbortError"));
    signal.addEventListener("abort", () => call.abort());
    const form = new FormData();
    form.append("file", file);
    call.send(form);
  });
}
