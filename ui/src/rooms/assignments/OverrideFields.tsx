import { Checkbox, TagsInput, TextInput } from "@mantine/core";
import css from "./assignments.module.css";
import { read, type Typed } from "./overrides";

/** Instances, labels and priority of one service in an assignment. */
export function OverrideFields({
  value,
  change,
  name,
}: {
  value: Typed;
  change: (value: Typed) => void;
  name: string;
}) {
  const checked = read(value);
  const wrong = (field: "instances" | "priority") =>
    "wrong" in checked && checked.wrong === field && checked.why;
  return (
    <div className={css.overrides}>
      <TextInput
        label="Instances on each Unit"
        aria-label={`Instances of ${name} on each Unit`}
        inputMode="numeric"
        placeholder="as configured"
        value={value.instances}
        error={wrong("instances")}
        onChange={(event) => change({ ...value, instances: event.currentTarget.value })}
      />
      <TextInput
        label="Priority"
        aria-label={`Priority of ${name}`}
        inputMode="numeric"
        placeholder="as configured"
        value={value.priority}
        error={wrong("priority")}
        onChange={(event) => change({ ...value, priority: event.currentTarget.value })}
      />
      <TagsInput
        label="Only on Nodes with labels"
        aria-label={`Labels for ${name}`}
        placeholder={value.labels.length === 0 ? "any Node; type one, then Enter" : ""}
        value={value.labels}
        onChange={(labels) => change({ ...value, labels })}
        clearable
        size="sm"
      />
      <Checkbox
        className={css.independent ?? ""}
        label="May fail alone: the rest of an update stays"
        aria-label={`${name} may fail alone`}
        checked={value.independent}
        onChange={(event) => change({ ...value, independent: event.currentTarget.checked })}
      />
    </div>
  );
}
