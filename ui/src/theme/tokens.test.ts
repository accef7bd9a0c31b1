import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const css = readFileSync("src/theme/tokens.css", "utf8");

function tokens(scheme: "light" | "dark"): Record<string, string> {
  const block = css.split(`[data-mantine-color-scheme="${scheme}"] {`)[1]?.split("}")[0] ?? "";
  return Object.fromEntries([...block.matchAll(/--([\w-]+):\s*(#[0-9a-f]{6});/g)].map((m) => [m[1], m[2]]));
}

function luminance(hex: string): number {
  const part = [1, 3, 5].map((at) => {
    const value = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * (part[0] ?? 0) + 0.7152 * (part[1] ?? 0) + 0.0722 * (part[2] ?? 0);
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return ((high ?? 0) + 0.05) / ((low ?? 0) + 0.05);
}

const words = ["text", "text-2", "text-3", "accent-text", "good", "busy", "warn", "bad", "idle"];
const surfaces = ["ground", "surface", "raised", "sunken", "hover"];
const pairs: [string, string, number][] = [
  ...words.flatMap((word) => surfaces.map((surface): [string, string, number] => [word, surface, 4.5])),
  ...["good", "busy", "warn", "bad", "idle"].map((tone): [string, string, number] => [
    tone,
    `${tone}-soft`,
    4.5,
  ]),
  ["accent-text", "accent-soft", 4.5],
  ["on-bad", "bad-fill", 4.5],
  ["on-accent", "accent", 4.5],
  ["on-accent", "accent-hover", 4.5],
  ["focus", "ground", 3],
  ["focus", "surface", 3],
  ["line-control", "surface", 3],
  ...["busy", "bad", "good"].map((tone): [string, string, number] => [`${tone}-mark`, "surface", 3]),
];

describe.each(["light", "dark"] as const)("%s scheme", (scheme) => {
  const colours = tokens(scheme);
  it.each(pairs)("%s on %s has a contrast of at least %d", (front, back, least) => {
    expect(colours[front], `token --${front}`).toBeDefined();
    expect(colours[back], `token --${back}`).toBeDefined();
    expect(contrast(colours[front] ?? "#000000", colours[back] ?? "#000000")).toBeGreaterThanOrEqual(least);
  });
});
