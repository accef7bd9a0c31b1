import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

interface Locked {
  packages: Record<string, { dev?: boolean; optional?: boolean; version: string; license?: string }>;
}

/** Writes `licences.txt`: the licence of every package that ends up in what browsers get. */
export function licences(): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle() {
      const locked = JSON.parse(readFileSync("package-lock.json", "utf8")) as Locked;
      const parts: string[] = [];
      for (const [folder, entry] of Object.entries(locked.packages)) {
        if (folder === "" || entry.dev || entry.optional || !existsSync(folder)) continue;
        const file = readdirSync(folder).find((name) => /^(licen[cs]e|copying)/i.test(name));
        const text = file ? readFileSync(join(folder, file), "utf8").trim() : "";
        const name = folder.slice(folder.lastIndexOf("node_modules/") + "node_modules/".length);
        parts.push(`${name} ${entry.version} (${entry.license ?? "see its text"})\n\n${text}\n`);
      }
      const rule = `\n${"-".repeat(80)}\n\n`;
      this.emitFile({ type: "asset", fileName: "licences.txt", source: parts.join(rule) });
    },
  };
}
