import type { UpdateSchedule } from "~/api/types";
import { told } from "./schedule";
import css from "./schedule.module.css";

/** A schedule in words. */
export function Told({ schedule, none }: { schedule: UpdateSchedule | null | undefined; none: string }) {
  return (
    <span className={css.lines}>
      {told(schedule, none).map((line) => (
        <span key={line}>{line}</span>
      ))}
    </span>
  );
}
