import { Check, Minus, X } from "lucide-react";
import { Link } from "wouter";
import type { BundleStage, DeploymentBundle } from "~/api/types";
import { Mark } from "~/parts/Mark";
import parts from "~/parts/parts.module.css";
import { Chips, Prose } from "~/parts/small";
import css from "./services.module.css";

const NAMES: Record<BundleStage, string> = {
  receive: "Received",
  verify: "Signature",
  read: "Content",
  convert: "Images",
  publish: "Published",
};

function took(from: string | null | undefined, to: string | null | undefined): string {
  if (!from || !to) return "";
  const ms = Date.parse(to) - Date.parse(from);
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.max(0, ms)} ms`;
}

/** The stages of a bundle, what it holds, and why it was refused if it was. */
export function Stages({ bundle }: { bundle: DeploymentBundle }) {
  return (
    <div>
      <div className={css.outcome} role="status">
        <Mark
          state={bundle.state}
          soft
          word={
            bundle.state === "error"
              ? "Refused"
              : bundle.state === "done" && bundle.is_check
                ? "Would be accepted"
                : undefined
          }
        />
        {/* The stage that failed says the same, at its place. */}
        {bundle.build_info && !bundle.stages.some((stage) => stage.message === bundle.build_info) && (
          <span>
            <Prose text={bundle.build_info} />
          </span>
        )}
      </div>
      <ol className={css.stages}>
        {bundle.stages.map((stage) => (
          <li key={stage.stage} data-stage={stage.state}>
            <span className={css.sign} aria-hidden="true">
              {stage.state === "done" && <Check size={12} strokeWidth={3} />}
              {stage.state === "failed" && <X size={12} strokeWidth={3} />}
              {stage.state === "skipped" && <Minus size={12} strokeWidth={3} />}
            </span>
            <div>
              <b>{NAMES[stage.stage] ?? stage.stage}</b>
              <span className="only-heard">: {stage.state}</span>
              {stage.message && (
                <p>
                  <Prose text={stage.message} />
                </p>
              )}
              {stage.hint && (
                <p className={css.hint}>
                  <Prose text={stage.hint} />
                </p>
              )}
            </div>
            <small>{took(stage.started_at, stage.finished_at)}</small>
          </li>
        ))}
      </ol>
      {bundle.items.length > 0 && (
        <ul className={css.items} aria-label="Items of the bundle">
          {bundle.items.map((item) => (
            <li key={`${item.codename}/${item.version}`}>
              <span>
                {item.service_id ? (
                  <Link href={`/services/${item.service_id}`}>{item.title || item.codename}</Link>
                ) : (
                  <b>{item.title || item.codename}</b>
                )}{" "}
                {item.version}
                <span className={parts.sub}>
                  {item.item_type} · {item.codename}
                </span>
              </span>
              <Chips of={item.platforms} none="no platform" />
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
