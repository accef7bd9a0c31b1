import { Button, Group, Modal, Select, Stack, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { put } from "~/api/client";
import type { UpdateSchedules } from "~/api/types";
import { Trouble } from "~/parts/small";
import { DAYS, read, type Typed, typed, wrongSlots } from "./schedule";
import css from "./schedule.module.css";

function Part(properties: { name: string; unset: string; value: Typed; change: (value: Typed) => void }) {
  const { name, value, change } = properties;
  return (
    <fieldset className={css.part}>
      <legend>{name}</legend>
      <div className={css.top}>
        <Select
          label="May be changed"
          aria-label={`When ${name.toLowerCase()} may be changed`}
          allowDeselect={false}
          data={[
            { value: "unset", label: properties.unset },
            { value: "force", label: "At once" },
            { value: "trigger", label: "When somebody on the Unit starts it" },
            { value: "timetable", label: "By a timetable" },
          ]}
          value={value.kind}
          onChange={(kind) => kind && change({ ...value, kind: kind as Typed["kind"] })}
        />
        <TextInput
          label="Give up after hours"
          aria-label={`Hours after which an update of ${name.toLowerCase()} is given up`}
          placeholder="never"
          inputMode="decimal"
          disabled={value.kind === "unset"}
          value={value.hours}
          onChange={(event) => change({ ...value, hours: event.currentTarget.value })}
        />
      </div>
      {value.kind === "timetable" && (
        <div className={css.days}>
          <p>
            Slots by the Unit's local time, such as 00:00-05:00, 22:00-24:00. A day without slots is closed.
          </p>
          {DAYS.map((day, at) => (
            <TextInput
              key={day}
              label={day}
              aria-label={`${name}, slots of ${day}`}
              placeholder="closed"
              value={value.days[at] ?? ""}
              error={wrongSlots(value.days[at] ?? "")}
              onChange={(event) =>
                change({
                  ...value,
                  days: value.days.map((old, place) => (place === at ? event.currentTarget.value : old)),
                })
              }
            />
          ))}
        </div>
      )}
    </fieldset>
  );
}

/** Says when software and firmware may be changed; `at` is where it is stored. */
export function ScheduleEditor(properties: {
  at: string;
  now: UpdateSchedules;
  unset: string;
  close: () => void;
}) {
  const { now, close } = properties;
  const client = useQueryClient();
  const [sota, setSota] = useState(() => typed(now.sota));
  const [fota, setFota] = useState(() => typed(now.fota));
  const software = read(sota);
  const firmware = read(fota);
  const wrong = "why" in software ? software.why : "why" in firmware ? firmware.why : null;
  const save = useMutation({
    mutationFn: async () => {
      if (!("schedule" in software) || !("schedule" in firmware)) return;
      const body: UpdateSchedules = {};
      if (software.schedule) body.sota = software.schedule;
      if (firmware.schedule) body.fota = firmware.schedule;
      await put(properties.at, body);
    },
    onSuccess: () => {
      void client.invalidateQueries();
      close();
    },
  });
  return (
    <Modal
      opened
      onClose={close}
      title="When updates may be carried out"
      size="lg"
      closeOnClickOutside={false}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="md">
          <Part name="Software" unset={properties.unset} value={sota} change={setSota} />
          <Part name="Firmware" unset={properties.unset} value={fota} change={setFota} />
          <p className={css.wrong} role="status">
            {wrong}
          </p>
          <Trouble error={save.error} doing="Nothing was stored" />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending} disabled={wrong !== null}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
