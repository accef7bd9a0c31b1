import type { ReactNode } from "react";
import css from "./parts.module.css";
import { say, type Tone } from "./tone";

/** The shape of a tone: disc, turning ring, triangle, diamond, hollow ring. Told apart without colour. */
export function Shape({ tone, size = 10 }: { tone: Tone; size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 10 10" aria-hidden="true" data-tone={tone}>
      {tone === "good" && <circle cx="5" cy="5" r="4" fill="currentColor" />}
      {tone === "busy" && (
        <circle
          className={css.turning}
          cx="5"
          cy="5"
          r="3.7"
          fill="none"
          stroke="currentColor"
          strokeWidth="2"
          strokeDasharray="16 8"
          strokeLinecap="round"
        />
      )}
      {tone === "warn" && <path d="M5 .8 9.6 9.2H.4Z" fill="currentColor" />}
      {tone === "bad" && <path d="M5 0 10 5 5 10 0 5Z" fill="currentColor" />}
      {tone === "idle" && (
        <circle cx="5" cy="5" r="3.5" fill="none" stroke="currentColor" strokeWidth="1.6" />
      )}
    </svg>
  );
}

/** A state: shape, colour and word. `soft` gives it a ground of its own. */
export function Mark({
  state,
  word,
  tone,
  soft,
}: {
  state: string;
  word?: ReactNode;
  tone?: Tone;
  soft?: boolean;
}) {
  const said = say(state);
  const shown = tone ?? said.tone;
  return (
    <span className={css.mark} data-tone={shown} data-soft={soft || undefined} data-state={state}>
      <Shape tone={shown} />
      <span>{word ?? said.word}</span>
    </span>
  );
}
