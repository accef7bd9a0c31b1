import { ActionIcon, Button, CopyButton, Skeleton, Tooltip } from "@mantine/core";
import { Check, CircleAlert, Copy, RotateCw } from "lucide-react";
import type { ComponentType, ReactNode } from "react";
import { Refusal } from "~/api/client";
import css from "./parts.module.css";
import { ago, full, useNow } from "./time";

/** A point in time as distance from now; the exact time is one hover or focus away. */
export function Ago({ at, never = "never" }: { at: string | null | undefined; never?: string }) {
  const now = useNow();
  if (!at) return <span className={css.faint}>{never}</span>;
  return (
    <time dateTime={at} title={full(at)}>
      {ago(at, now)}
    </time>
  );
}

/** A button that copies a text and says that it did. */
export function CopyIcon({ text, what }: { text: string; what: string }) {
  return (
    <CopyButton value={text} timeout={1600}>
      {({ copied, copy }) => (
        <Tooltip label={copied ? "Copied" : `Copy ${what}`}>
          <ActionIcon
            variant="subtle"
            color="gray"
            size="sm"
            aria-label={copied ? "Copied" : `Copy ${what}`}
            onClick={copy}
          >
            {copied ? <Check size={13} aria-hidden /> : <Copy size={13} aria-hidden />}
          </ActionIcon>
        </Tooltip>
      )}
    </CopyButton>
  );
}

/** An identifier: monospaced, cut at the end if it must be, to be copied whole. */
export function Ident({ id, what }: { id: string; what: string }) {
  return (
    <span className={css.ident} data-above>
      <code title={id}>{id}</code>
      <CopyIcon text={id} what={what} />
    </span>
  );
}

/** A command to type, with a button that copies it. */
export function Command({ text }: { text: string }) {
  return (
    <div className={css.command}>
      <code>{text}</code>
      <CopyIcon text={text} what="command" />
    </div>
  );
}

/** What a list shows while it is empty: what it would hold, and what to do next. */
export function Empty(properties: {
  icon?: ComponentType<{ size?: number; strokeWidth?: number; "aria-hidden"?: boolean }>;
  title: string;
  children?: ReactNode;
  command?: string;
  action?: ReactNode;
  small?: boolean;
}) {
  const Icon = properties.icon;
  return (
    <div className={css.empty} data-small={properties.small || undefined}>
      {Icon && <Icon size={30} strokeWidth={1.4} aria-hidden />}
      <h3>{properties.title}</h3>
      {properties.children && <p>{properties.children}</p>}
      {properties.command && <Command text={properties.command} />}
      {properties.action}
    </div>
  );
}

/** Text of the server with its `commands` set as code. */
export function Prose({ text }: { text: string }) {
  return text.split("`").map((part, at) =>
    // biome-ignore lint/suspicious/noArrayIndexKey: the parts have nothing but their place
    at % 2 === 1 ? <code key={at}>{part}</code> : part,
  );
}

/** Turns anything thrown into what failed and what to do. */
export function explained(error: unknown): {
  message: string;
  hint: string | undefined;
  field: string | undefined;
} {
  if (error instanceof Refusal) return { message: error.message, hint: error.hint, field: error.field };
  return {
    message: error instanceof Error ? error.message : String(error),
    hint: "Reload the page. If it happens again, report it with this text.",
    field: undefined,
  };
}

/** Says what failed, why, and what to do. Nothing is shown while there is no error. */
export function Trouble({ error, doing, retry }: { error: unknown; doing?: string; retry?: () => void }) {
  if (error === null || error === undefined) return null;
  const { message, hint, field } = explained(error);
  return (
    <div className={css.trouble} role="alert">
      <CircleAlert size={17} aria-hidden />
      <div>
        <strong>
          <Prose text={doing ? `${doing}: ${message}` : message} />
        </strong>
        {field && (
          <p>
            Field: <code>{field}</code>
          </p>
        )}
        {hint && (
          <p>
            <Prose text={hint} />
          </p>
        )}
      </div>
      {retry && (
        <Button variant="default" size="xs" leftSection={<RotateCw size={13} aria-hidden />} onClick={retry}>
          Try again
        </Button>
      )}
    </div>
  );
}

/** Lines that stand where content will be. */
export function Loading({ lines = 5 }: { lines?: number }) {
  return (
    <div className={css.inside} role="status">
      <span className="only-heard">Loading</span>
      {Array.from({ length: lines }, (_, line) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the lines have nothing but their place
        <Skeleton key={line} height={14} radius="sm" mb={14} width={`${92 - ((line * 17) % 40)}%`} />
      ))}
    </div>
  );
}

/** Small labels in a row. */
export function Chips({ of, none = "none" }: { of: string[]; none?: string }) {
  if (of.length === 0) return <span className={css.faint}>{none}</span>;
  return (
    <span className={css.chips}>
      {of.map((text) => (
        <span key={text} className={css.chip}>
          {text}
        </span>
      ))}
    </span>
  );
}

/** Names and their values. */
export function Facts({ of }: { of: [string, ReactNode][] }) {
  return (
    <dl className={css.facts}>
      {of.map(([name, value]) => (
        <div key={name} style={{ display: "contents" }}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A JSON document to read. */
export function Document({ value, label }: { value: unknown; label: string }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <section className={css.document} tabIndex={0} aria-label={label}>
      <pre style={{ margin: 0 }}>{JSON.stringify(value, null, 2)}</pre>
    </section>
  );
}
