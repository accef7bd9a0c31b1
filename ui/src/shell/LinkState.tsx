import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { Unplug } from "lucide-react";
import { makeEvents, useLink } from "~/api/events";
import { Mark } from "~/parts/Mark";
import { clock, useNow } from "~/parts/time";
import css from "./shell.module.css";

const PATIENCE_MS = 1500;

/** Whether what is shown is live, in a word. */
export function LinkState() {
  const link = useLink();
  const shown =
    link.state === "live"
      ? { tone: "good" as const, word: "Live" }
      : link.state === "lost"
        ? { tone: "bad" as const, word: "Link lost" }
        : { tone: "busy" as const, word: "Connecting" };
  return (
    <span
      className={css.link}
      role="status"
      aria-label={`Link to the cloud: ${shown.word}`}
      data-link={link.state}
    >
      <Mark state={link.state} tone={shown.tone} word={shown.word} />
    </span>
  );
}

/** Says, once the link has been lost for a moment, from when what is shown is and when the next try comes. */
export function LinkBanner() {
  const link = useLink();
  const client = useQueryClient();
  const now = useNow();
  if (link.state !== "lost" || now - link.since < PATIENCE_MS) return null;
  const wait = Math.max(0, Math.ceil((link.retryAt - now) / 1000));
  return (
    <div className={css.banner} role="alert">
      <Unplug size={16} aria-hidden />
      <span>
        <strong>The link to the cloud is lost.</strong> What you see is from {clock(link.since)}. Units go on
        by themselves. {wait > 0 ? `Trying again in ${wait} s.` : "Trying again…"}
      </span>
      <Button size="compact-sm" variant="default" onClick={() => makeEvents(client).retryNow()}>
        Try now
      </Button>
    </div>
  );
}
