import { useEffect } from "react";
import { ROOMS } from "./rooms";

const CHORD_MS = 1200;

function typing(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

/** `g` and a letter go to a room, `/` searches, `?` shows the keys. Silent while one types or a dialog is open. */
export function useShortcuts(acts: { go: (to: string) => void; search: () => void; help: () => void }): void {
  useEffect(() => {
    let chord = 0;
    const hear = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target))
        return;
      if (document.querySelector('[role="dialog"]')) return;
      if (Date.now() - chord < CHORD_MS) {
        chord = 0;
        const room = ROOMS.find((each) => each.key === event.key.toLowerCase());
        if (room) {
          event.preventDefault();
          acts.go(room.to);
        }
        return;
      }
      if (event.key === "g") {
        chord = Date.now();
      } else if (event.key === "/") {
        event.preventDefault();
        acts.search();
      } else if (event.key === "?") {
        event.preventDefault();
        acts.help();
      }
    };
    window.addEventListener("keydown", hear);
    return () => window.removeEventListener("keydown", hear);
  }, [acts]);
}
