import { Button, Group, Modal, SegmentedControl, Stack, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation } from "wouter";
import { post } from "~/api/client";
import type { Subject } from "~/api/types";
import type { Choice } from "~/parts/Picker";
import { Trouble } from "~/parts/small";
import { count } from "~/parts/time";
import css from "./assignments.module.css";
import { OverrideFields } from "./OverrideFields";
import { read, type Typed, untouched } from "./overrides";
import { ServicePicker, UnitPicker } from "./pickers";

/** Makes an assignment: which services run on which Units, and how. */
export function NewAssignment(properties: {
  close: () => void;
  label?: string;
  units?: Choice[];
  services?: Choice[];
  /** The name under which Units report the Subject by themselves. */
  reportedAs?: string;
}) {
  const { close } = properties;
  const client = useQueryClient();
  const [, go] = useLocation();
  const [label, setLabel] = useState(properties.label ?? "");
  const [kind, setKind] = useState("group");
  const [priority, setPriority] = useState("0");
  const [units, setUnits] = useState<Choice[]>(properties.units ?? []);
  const [services, setServices] = useState<Choice[]>(properties.services ?? []);
  const [set, setSet] = useState<Record<string, Typed>>({});
  const { reportedAs } = properties;

  const priorityWrong = /^\d{1,6}$/.test(priority.trim()) ? null : "A whole number from 0 to 999999.";
  const bad = services.some((service) => "wrong" in read(set[service.id] ?? untouched));
  const save = useMutation({
    mutationFn: async () =>
      post<Subject>("/assignments/", {
        subject: label.trim(),
        subject_priority: Number(priority.trim()),
        is_group: kind === "group",
        ...(reportedAs ? { reported_as: reportedAs } : {}),
        system_uids: units.map((unit) => unit.id),
        services: services.map((service) => {
          const typed = read(set[service.id] ?? untouched);
          if ("wrong" in typed) throw new Error(`${service.name}: ${typed.why}`);
          return { service: service.id, overrides: typed.overrides };
        }),
      }),
    onSuccess: (subject) => {
      void client.invalidateQueries();
      notifications.show({
        title: `“${subject.label}” is assigned`,
        message: reportedAs
          ? `${count(services.length, "service")} on each Unit that reports ${reportedAs}.`
          : `${count(services.length, "service")} on ${count(units.length, "Unit")}.`,
      });
      close();
      go(`/assignments/${subject.id}`);
    },
  });

  return (
    <Modal opened onClose={close} title="New assignment" size="xl" closeOnClickOutside={false}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="md">
          <div className={css.top}>
            <TextInput
              label="Name"
              placeholder="for example: front cameras, spring fleet"
              value={label}
              required
              withAsterisk={false}
              data-autofocus
              onChange={(event) => setLabel(event.currentTarget.value)}
            />
            <TextInput
              label="Priority, highest first"
              inputMode="numeric"
              value={priority}
              error={priorityWrong}
              onChange={(event) => setPriority(event.currentTarget.value)}
            />
          </div>
          <div>
            <SegmentedControl
              aria-label="Kind of Subject"
              value={kind}
              onChange={setKind}
              data={[
                { value: "group", label: "Group of Units" },
                { value: "person", label: "Person" },
              ]}
            />
            <p className={css.hint}>
              {kind === "group"
                ? "Runs on all its Units at once. The state of its services stays on each Unit."
                : "Belongs to one Unit at a time, and the state of its services follows the person."}
            </p>
          </div>
          {reportedAs && (
            <p className={css.hint}>
              Units report this Subject by themselves, as <code>{reportedAs}</code>. It concerns each Unit
              that does, and what it brings runs only while the Unit reports it.
            </p>
          )}
          <div className={css.two}>
            <ServicePicker picked={services} pick={setServices} />
            {!reportedAs && <UnitPicker picked={units} pick={setUnits} />}
          </div>
          {services.length > 0 && (
            <div>
              <h3 className={css.sub}>How they run</h3>
              <ul className={css.how}>
                {services.map((service) => (
                  <li key={service.id}>
                    <b>{service.name}</b>
                    <OverrideFields
                      name={service.name}
                      value={set[service.id] ?? untouched}
                      change={(value) => setSet({ ...set, [service.id]: value })}
                    />
                  </li>
                ))}
              </ul>
            </div>
          )}
          <Trouble error={save.error} doing="Nothing was assigned" />
          <div className={css.end}>
            <span className={css.plan} role="status">
              {services.length > 0 && (units.length > 0 || reportedAs)
                ? reportedAs
                  ? `${count(services.length, "service")} will run on each Unit that reports ${reportedAs}.`
                  : `${count(services.length, "service")} will run on ${count(units.length, "Unit")}.`
                : "Services or Units may also be added later."}
            </span>
            <Group gap="xs">
              <Button variant="default" onClick={close}>
                Cancel
              </Button>
              <Button
                type="submit"
                loading={save.isPending}
                disabled={label.trim() === "" || priorityWrong !== null || bad}
              >
                Assign
              </Button>
            </Group>
          </div>
        </Stack>
      </form>
    </Modal>
  );
}
