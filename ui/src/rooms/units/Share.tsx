import type { UnitCounts } from "~/api/types";
import css from "./units.module.css";

/** How many of the desired instances are active, as a bar and as numbers. */
export function Share({ counts }: { counts: UnitCounts }) {
  const whole = Math.max(counts.instances_desired, counts.instances);
  if (whole === 0) return <span className={css.nothing}>—</span>;
  const part = (many: number) => `${(many / whole) * 100}%`;
  return (
    <span className={css.share}>
      <span className={css.gauge} aria-hidden="true">
        <i data-tone="good" style={{ width: part(Math.min(counts.instances_active, whole)) }} />
        <i data-tone="bad" style={{ width: part(Math.min(counts.instances_failed, whole)) }} />
      </span>
      <span>
        {counts.instances_active}
        <span className={css.nothing}> / {counts.instances_desired}</span>
        {counts.instances_failed > 0 && (
          <span className={css.failed}> · {counts.instances_failed} failed</span>
        )}
      </span>
    </span>
  );
}
