import { Check, CircleAlert, Hourglass, X } from "lucide-react";
import type { DesiredState, Unit, UnitItem, UnitSubjectService } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Ago } from "~/parts/small";
import { faults, steps } from "./phase";
import css from "./unit.module.css";

/** How far the Unit is with its newest desired state, step by step, and what failed on the way. */
export function Update(properties: {
  unit: Unit;
  desired: DesiredState | null;
  items: UnitItem[];
  services: UnitSubjectService[];
  /** What the Unit says of the update as a whole. */
  told: string[];
}) {
  const { unit, desired, items, services } = properties;
  if (unit.update_phase === "none") return null;
  const failed = faults(unit, items, services);
  return (
    <Card
      title="Update"
      note={
        desired && (
          <>
            desired state no. {desired.number}, <Ago at={desired.composed_at} />
          </>
        )
      }
      actions={<Mark state={unit.update_phase} soft />}
    >
      <ol className={css.steps} aria-label="Steps of the update">
        {steps(unit, desired, items, services).map((step) => (
          <li key={step.id} data-step={step.state} aria-current={step.state === "now" ? "step" : undefined}>
            <span className={css.dot} aria-hidden="true">
              {step.state === "done" && <Check size={12} strokeWidth={3} />}
              {step.state === "failed" && <X size={12} strokeWidth={3} />}
            </span>
            <span className={css.stepName}>
              {step.name}
              <span className="only-heard">
                {{ done: ", done", now: ", under way", failed: ", failed", ahead: ", not begun" }[step.state]}
              </span>
            </span>
            <span className={css.stepNote}>{step.note}</span>
          </li>
        ))}
      </ol>
      {unit.download?.hindrance && (
        <ul className={css.faults} data-soft="true" aria-label="What hinders the download">
          <li>
            <Hourglass size={15} aria-hidden />
            <span>A download broke off and is tried again: {unit.download.hindrance}</span>
          </li>
        </ul>
      )}
      {properties.told.length > 0 && (
        <ul className={css.faults} data-soft="true" aria-label="What the Unit says">
          {properties.told.map((text) => (
            <li key={text}>
              <Hourglass size={15} aria-hidden />
              <span>{text}</span>
            </li>
          ))}
        </ul>
      )}
      {failed.length > 0 && (
        <ul className={css.faults} aria-label="What failed">
          {failed.slice(0, 6).map((fault) => (
            <li key={`${fault.what}${fault.why}`}>
              <CircleAlert size={15} aria-hidden />
              <span>
                <b>{fault.what}</b>: {fault.why}
              </span>
            </li>
          ))}
          {failed.length > 6 && <li>and {failed.length - 6} more</li>}
        </ul>
      )}
    </Card>
  );
}
