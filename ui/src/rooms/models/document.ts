/** A unit configuration as text: what is wrong with it, and where. */
export type Checked = { value: Record<string, unknown> } | { wrong: string };

/** Reads the text of a unit configuration. Names line and column of what is not JSON. */
export function check(text: string, after: string | null): Checked {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { wrong: `Not JSON: ${place(text, error instanceof Error ? error.message : String(error))}` };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return { wrong: "It must be a JSON object." };
  const document = value as Record<string, unknown>;
  const version = document.version;
  if (typeof version !== "string" || version === "") {
    return { wrong: 'It needs a "version", such as "1.0.0", as text.' };
  }
  if (after !== null && higher(version, after) === false) {
    return { wrong: `"version" is ${version}; it must be higher than ${after}.` };
  }
  return { value: document };
}

function place(text: string, message: string): string {
  const at = /position (\d+)/.exec(message)?.[1];
  if (at === undefined) return message;
  const before = text.slice(0, Number(at)).split("\n");
  const short = message.replace(/ in JSON at position.*$/, "").replace(/ \(line.*$/, "");
  return `${short}, line ${before.length}, column ${(before.at(-1) ?? "").length + 1}.`;
}

function numbers(version: string): number[] | null {
  const match = /^(\d+)\.(\d+)\.(\d+)$/.exec(version);
  return match ? match.slice(1).map(Number) : null;
}

/** Whether `version` is higher than `than`; null where only the server can tell (pre-releases). */
export function higher(version: string, than: string): boolean | null {
  const [a, b] = [numbers(version), numbers(than)];
  if (!a || !b) return null;
  for (let at = 0; at < 3; at += 1) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return false;
}

/** The document to begin the next version with: the last one with its version raised, or a first one. */
export function next(last: unknown, version: string | null): string {
  const parts = version === null ? null : numbers(version);
  const raised = parts ? `${parts[0]}.${(parts[1] ?? 0) + 1}.0` : "1.0.0";
  const document =
    typeof last === "object" && last !== null
      ? { ...last, version: raised }
      : { formatVersion: "1", version: raised, nodes: [{ nodeType: "main", labels: ["main"], priority: 0 }] };
  return `${JSON.stringify(document, null, 2)}\n`;
}
