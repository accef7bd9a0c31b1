import { Button, Group, Menu, Modal, Stack, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Boxes, Cpu, EllipsisVertical, Pencil, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { Link, useLocation } from "wouter";
import { patch, path, post, put, remove } from "~/api/client";
import { subject as readSubject, subjectUnits } from "~/api/queries";
import type { Subject, SubjectService, SubjectUnit } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Mark } from "~/parts/Mark";
import type { Choice } from "~/parts/Picker";
import parts from "~/parts/parts.module.css";
import { Card, Head } from "~/parts/Room";
import { Chips, Empty, Ident, Loading, Trouble } from "~/parts/small";
import { count, who } from "~/parts/time";
import css from "./assignments.module.css";
import { OverrideFields } from "./OverrideFields";
import { read, told, typed } from "./overrides";
import { ServicePicker, UnitPicker } from "./pickers";

function Edit({ subject, close }: { subject: Subject; close: () => void }) {
  const client = useQueryClient();
  const [label, setLabel] = useState(subject.label);
  const [priority, setPriority] = useState(String(subject.priority));
  const wrong = /^\d{1,6}$/.test(priority.trim()) ? null : "A whole number from 0 to 999999.";
  const save = useMutation({
    mutationFn: () =>
      patch(path`/subjects/${subject.id}/`, { label: label.trim(), priority: Number(priority.trim()) }),
    onSuccess: () => {
      void client.invalidateQueries();
      close();
    },
  });
  return (
    <Modal opened onClose={close} title="Name and priority">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="sm">
          <TextInput
            label="Name"
            value={label}
            data-autofocus
            onChange={(event) => setLabel(event.currentTarget.value)}
          />
          <TextInput
            label="Priority"
            description="Higher gets resources first"
            inputMode="numeric"
            value={priority}
            error={wrong}
            onChange={(event) => setPriority(event.currentTarget.value)}
          />
          <Trouble error={save.error} doing="Nothing was changed" />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending} disabled={wrong !== null || label.trim() === ""}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

function Add(properties: {
  what: "services" | "units";
  subject: Subject;
  taken: Set<string>;
  close: () => void;
}) {
  const { what, subject, close } = properties;
  const client = useQueryClient();
  const [picked, pick] = useState<Choice[]>([]);
  const save = useMutation({
    mutationFn: () => {
      const ids = picked.map((choice) => choice.id);
      return what === "services"
        ? post(path`/subjects/${subject.id}/services/`, { service_ids: ids })
        : post(path`/subjects/${subject.id}/units/`, { system_uids: ids });
    },
    onSuccess: () => {
      void client.invalidateQueries();
      close();
    },
  });
  const Which = what === "services" ? ServicePicker : UnitPicker;
  return (
    <Modal opened onClose={close} title={what === "services" ? "Add services" : "Add Units"}>
      <Stack gap="md">
        <Which picked={picked} pick={pick} hidden={properties.taken} />
        <Trouble error={save.error} doing="Nothing was added" />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button disabled={picked.length === 0} loading={save.isPending} onClick={() => save.mutate()}>
            {picked.length === 0
              ? "Add"
              : `Add ${count(picked.length, what === "services" ? "service" : "Unit")}`}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}

function ServiceRow({ subject, entry }: { subject: Subject; entry: SubjectService }) {
  const client = useQueryClient();
  const [value, setValue] = useState<ReturnType<typeof typed> | null>(null);
  const [removing, ask] = useDisclosure(false);
  const checked = value && read(value);
  const name = entry.service.title || entry.service.codename;
  const at = path`/subjects/${subject.id}/services/${entry.service.id}/`;
  const save = useMutation({
    mutationFn: async () => {
      if (checked && "overrides" in checked) await put(at, checked.overrides);
    },
    onSuccess: () => {
      void client.invalidateQueries();
      setValue(null);
    },
  });
  return (
    <li className={css.row} data-service={entry.service.codename}>
      <div className={css.grow}>
        <Link href={`/services/${entry.service.id}`} className={parts.name}>
          {name}
        </Link>
        <span className={parts.sub}>
          {entry.service.codename} ·{" "}
          {entry.latest_version ? `newest version ${entry.latest_version}` : "no version is ready"}
        </span>
        {told(entry.overrides).length > 0 && (
          <div className={css.set}>
            <Chips of={told(entry.overrides)} />
          </div>
        )}
      </div>
      <Button
        variant="subtle"
        size="compact-sm"
        aria-expanded={value !== null}
        aria-label={`Edit how ${name} runs`}
        onClick={() => setValue(value ? null : typed(entry.overrides))}
      >
        Edit
      </Button>
      <Button variant="subtle" color="red" size="compact-sm" aria-label={`Remove ${name}`} onClick={ask.open}>
        Remove
      </Button>
      {value && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            save.mutate();
          }}
        >
          <OverrideFields name={name} value={value} change={setValue} />
          <Trouble error={save.error} doing="Nothing was changed" />
          <Group justify="flex-end" gap="xs" mt="sm">
            <Button variant="default" size="xs" onClick={() => setValue(null)}>
              Cancel
            </Button>
            <Button
              type="submit"
              size="xs"
              loading={save.isPending}
              disabled={checked !== null && "wrong" in checked}
            >
              Save
            </Button>
          </Group>
        </form>
      )}
      <Confirm
        opened={removing}
        close={ask.close}
        title={`Take ${name} out of “${subject.label}”?`}
        button="Remove the service"
        act={() => remove(at)}
        done={() => void client.invalidateQueries()}
      >
        Its instances stop on {count(subject.unit_count, "Unit")}, as soon as each is linked. What the
        instances stored there goes with them.
      </Confirm>
    </li>
  );
}

function UnitRow({ subject, unit }: { subject: Subject; unit: SubjectUnit }) {
  const client = useQueryClient();
  const [removing, ask] = useDisclosure(false);
  const name = unit.title || unit.system_uid;
  return (
    <li className={css.row}>
      <div className={css.grow}>
        <Link href={`/units/${unit.id}`} className={parts.name}>
          {name}
        </Link>
        {unit.title && <span className={parts.sub}>{unit.system_uid}</span>}
      </div>
      <Mark state={unit.online_status} />
      <Button variant="subtle" color="red" size="compact-sm" aria-label={`Remove ${name}`} onClick={ask.open}>
        Remove
      </Button>
      <Confirm
        opened={removing}
        close={ask.close}
        title={`Take ${name} out of “${subject.label}”?`}
        button="Remove the Unit"
        act={() => remove(path`/subjects/${subject.id}/units/${unit.id}/`)}
        done={() => void client.invalidateQueries()}
      >
        {count(subject.services.length, "service")} of this assignment stop on {name}, as soon as it is
        linked.
      </Confirm>
    </li>
  );
}

/** One assignment: its services with how they run, and its Units. */
export default function Assignment({ id }: { id: string }) {
  const [, go] = useLocation();
  const subject = useQuery(readSubject(id));
  const units = useQuery(subjectUnits(id));
  const [adding, add] = useState<"services" | "units" | null>(null);
  const [editing, edit] = useDisclosure(false);
  const [deleting, ask] = useDisclosure(false);
  const data = subject.data;
  if (!data) {
    return (
      <>
        <Head title="Assignment" page="Assignment" trail={[["Assignments", "/assignments"]]} />
        {subject.error ? (
          <Trouble
            error={subject.error}
            doing="The assignment could not be read"
            retry={() => void subject.refetch()}
          />
        ) : (
          <Loading />
        )}
      </>
    );
  }
  const taken = new Set(
    adding === "services"
      ? data.services.map((entry) => entry.service.codename)
      : (units.data?.items ?? []).map((unit) => unit.system_uid),
  );
  return (
    <>
      <Head
        title={data.label}
        page={data.label}
        trail={[["Assignments", "/assignments"]]}
        under={
          <>
            <span>{data.is_group ? "Group of Units" : "Person"}</span>
            <span>priority {data.priority}</span>
            <span>made by {who(data.created_by)}</span>
            <Ident id={data.id} what="Subject id" />
          </>
        }
      >
        <Menu position="bottom-end">
          <Menu.Target>
            <Button variant="default" rightSection={<EllipsisVertical size={14} aria-hidden />}>
              Assignment
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item leftSection={<Pencil size={14} aria-hidden />} onClick={edit.open}>
              Name and priority…
            </Menu.Item>
            <Menu.Item
              color="red"
              disabled={data.is_protected}
              leftSection={<Trash2 size={14} aria-hidden />}
              onClick={ask.open}
            >
              Delete…
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </Head>
      <div className={css.columns}>
        <Card
          title="Services"
          note={count(data.services.length, "service")}
          actions={
            <Button
              variant="default"
              size="compact-sm"
              leftSection={<Plus size={13} aria-hidden />}
              onClick={() => add("services")}
            >
              Add services
            </Button>
          }
        >
          {data.services.length === 0 ? (
            <Empty
              icon={Boxes}
              title="It brings no service yet"
              command={`aos assign <service> --subject "${data.label}"`}
              small
            >
              Add the services that shall run on its Units.
            </Empty>
          ) : (
            <ul>
              {data.services.map((entry) => (
                <ServiceRow key={entry.service.id} subject={data} entry={entry} />
              ))}
            </ul>
          )}
        </Card>
        <Card
          title="Units"
          note={count(data.unit_count, "Unit")}
          actions={
            <Button
              variant="default"
              size="compact-sm"
              leftSection={<Plus size={13} aria-hidden />}
              onClick={() => add("units")}
            >
              Add Units
            </Button>
          }
        >
          {units.isPending && <Loading lines={3} />}
          <Trouble error={units.error} doing="Units could not be read" />
          {units.data?.items.length === 0 && (
            <Empty icon={Cpu} title="It is on no Unit yet" small>
              Add the Units that shall run its services.
            </Empty>
          )}
          <ul>
            {(units.data?.items ?? []).map((unit) => (
              <UnitRow key={unit.id} subject={data} unit={unit} />
            ))}
          </ul>
        </Card>
      </div>
      {adding && <Add what={adding} subject={data} taken={taken} close={() => add(null)} />}
      {editing && <Edit subject={data} close={edit.close} />}
      <Confirm
        opened={deleting}
        close={ask.close}
        title={`Delete “${data.label}”?`}
        button="Delete the assignment"
        act={() => remove(path`/subjects/${data.id}/`)}
        done={() => go("/assignments")}
      >
        {count(data.services.length, "service")} stop on {count(data.unit_count, "Unit")}, as soon as each is
        linked, unless another assignment brings them too.
      </Confirm>
    </>
  );
}
