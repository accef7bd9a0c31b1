import { type ComponentType, type LazyExoticComponent, lazy } from "react";

const WAITS_MS = [250, 1000, 3000];

/** Loads a room when it is first entered. A break of the network while it loads costs a moment, not the page. */
export function lazily<Properties>(
  load: () => Promise<{ default: ComponentType<Properties> }>,
): LazyExoticComponent<ComponentType<Properties>> {
  return lazy(async () => {
    for (const wait of WAITS_MS) {
      try {
        return await load();
      } catch {
        await new Promise((done) => setTimeout(done, wait));
      }
    }
    return load();
  });
}
