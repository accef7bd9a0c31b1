import { ActionIcon, Button, Group, Modal, PasswordInput, Stack, TextInput, Tooltip } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Eye, EyeOff, KeyRound, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { get, path, post, remove } from "~/api/client";
import { envVars } from "~/api/queries";
import type { EnvVar, Page, Unit } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Mark } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { full } from "~/parts/time";
import type { Tone } from "~/parts/tone";
import { why } from "./phase";
import css from "./unit.module.css";

const STATES: Record<EnvVar["state"], [Tone, string]> = {
  waiting_for_unit: ["warn", "Waiting for the Unit"],
  taken: ["busy", "The Unit has it"],
  set: ["good", "Set"],
  failed: ["bad", "Failed"],
};

function whose(row: EnvVar): string {
  const parts = [
    row.service ? row.service.title || row.service.codename : "",
    row.subject ? `for ${row.subject.label}` : "",
    row.instance_id == null ? "" : `instance ${row.instance_id}`,
  ].filter((part) => part !== "");
  return parts.length === 0 ? "all instances" : parts.join(", ");
}

function New({ unit, close }: { unit: Unit; close: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const [service, setService] = useState("");
  const [subject, setSubject] = useState("");
  const [instance, setInstance] = useState("");
  const [minutes, setMinutes] = useState("");
  const whole = (text: string) => text.trim() === "" || /^\d{1,9}$/.test(text.trim());
  const save = useMutation({
    mutationFn: () =>
      post(path`/units/${unit.id}/env-vars/`, {
        ...(service.trim() === "" ? {} : { service: service.trim() }),
        ...(subject.trim() === "" ? {} : { subject: subject.trim() }),
        ...(instance.trim() === "" ? {} : { instance_id: Number(instance.trim()) }),
        variables: [
          {
            name: name.trim(),
            value,
            ...(minutes.trim() === "" ? {} : { ttl: Number(minutes.trim()) * 60 }),
          },
        ],
      }),
    onSuccess: () => {
      void client.invalidateQueries();
      close();
    },
  });
  return (
    <Modal opened onClose={close} title="Set an environment variable" closeOnClickOutside={false}>
      <form
        autoComplete="off"
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="sm">
          <TextInput
            label="Variable"
            placeholder="LOG_LEVEL"
            value={name}
            required
            withAsterisk={false}
            data-autofocus
            spellCheck={false}
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <PasswordInput
            label="Value"
            description="Not shown in lists, logs and the audit."
            autoComplete="new-password"
            value={value}
            onChange={(event) => setValue(event.currentTarget.value)}
          />
          <TextInput
            label="Only for the service"
            placeholder="any; a codename"
            value={service}
            onChange={(event) => setService(event.currentTarget.value)}
          />
          <Group grow align="start" gap="sm">
            <TextInput
              label="Only for the Subject"
              placeholder="any; a name"
              value={subject}
              onChange={(event) => setSubject(event.currentTarget.value)}
            />
            <TextInput
              label="Only for the instance"
              placeholder="any; a number"
              inputMode="numeric"
              value={instance}
              error={whole(instance) ? null : "A whole number."}
              onChange={(event) => setInstance(event.currentTarget.value)}
            />
          </Group>
          <TextInput
            label="Ends after minutes"
            placeholder="never"
            inputMode="numeric"
            value={minutes}
            error={whole(minutes) ? null : "A whole number."}
            onChange={(event) => setMinutes(event.currentTarget.value)}
          />
          <Trouble error={save.error} doing="Nothing was set" />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button
              type="submit"
              loading={save.isPending}
              disabled={name.trim() === "" || !whole(instance) || !whole(minutes)}
            >
              Set
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

/** Variables that are set over those of the items, and what became of them. */
export function EnvVars({ unit }: { unit: Unit }) {
  const read = useQuery(envVars(unit.id));
  const client = useQueryClient();
  const [adding, add] = useDisclosure(false);
  const [leaving, leave] = useState<EnvVar | null>(null);
  // Values are asked for once, not with every change of the Unit: each asking is a row of the audit.
  const [values, setValues] = useState<Record<string, string> | null>(null);
  const reveal = useMutation({
    mutationFn: () => get<Page<EnvVar>>(path`/units/${unit.id}/env-vars/`, { reveal: true }),
    onSuccess: (all) => setValues(Object.fromEntries(all.items.map((each) => [each.id, each.value ?? ""]))),
  });
  const rows = read.data?.items ?? [];
  const columns: Column<EnvVar>[] = [
    { head: "Variable", cell: (row) => <Named name={<code>{row.name}</code>} sub={whose(row)} /> },
    {
      head: "Value",
      cell: (row) =>
        values?.[row.id] === undefined ? (
          <span className={css.faint}>
            <span aria-hidden="true">••••••</span>
            <span className="only-heard">hidden</span>
          </span>
        ) : (
          <code className={css.value}>{values[row.id] || "(empty)"}</code>
        ),
    },
    {
      head: "Ends",
      cell: (row) =>
        row.expires_at ? <span title={full(row.expires_at)}>{full(row.expires_at)}</span> : "never",
      bare: (row) => !row.expires_at,
    },
    {
      head: "State",
      cell: (row) => {
        const [tone, word] = STATES[row.state];
        const failed = row.instances.find((each) => each.error);
        return (
          <>
            <Mark state={row.state} tone={tone} word={word} />
            {failed && (
              <p className={css.nodeError}>
                instance {failed.instance_id}: {why(failed.error)}
              </p>
            )}
          </>
        );
      },
    },
    { head: "Set", minor: true, cell: (row) => <Ago at={row.created_at} /> },
    {
      head: "",
      cell: (row) => (
        <Tooltip label="Take away">
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={`Take ${row.name} away`}
            onClick={() => leave(row)}
          >
            <Trash2 size={14} aria-hidden />
          </ActionIcon>
        </Tooltip>
      ),
    },
  ];
  return (
    <Card
      title="Environment variables"
      note="over those of the services"
      actions={
        <Group gap="xs">
          {rows.length > 0 && (
            <Button
              size="xs"
              variant="subtle"
              loading={reveal.isPending}
              leftSection={values ? <EyeOff size={13} aria-hidden /> : <Eye size={13} aria-hidden />}
              onClick={() => (values ? setValues(null) : reveal.mutate())}
            >
              {values ? "Hide values" : "Show values"}
            </Button>
          )}
          <Button size="xs" variant="default" leftSection={<Plus size={13} aria-hidden />} onClick={add.open}>
            Set a variable
          </Button>
        </Group>
      }
    >
      <Trouble
        error={read.error ?? reveal.error}
        doing="They could not be read"
        retry={() => void read.refetch()}
      />
      {read.isPending && <Loading lines={3} />}
      {read.data && rows.length === 0 && (
        <Empty icon={KeyRound} title="No variable is set" small>
          A variable set here reaches the instances it is meant for, which are started again with it.
        </Empty>
      )}
      {rows.length > 0 && (
        <Table
          label="Environment variables"
          columns={columns}
          rows={rows}
          name={(row) => row.id}
          mark={(row) => ({ "data-variable": row.name })}
        />
      )}
      {adding && <New unit={unit} close={add.close} />}
      <Confirm
        opened={leaving !== null}
        close={() => leave(null)}
        title={`Take ${leaving?.name ?? ""} away?`}
        button="Take it away"
        act={() => remove(path`/units/${unit.id}/env-vars/${leaving?.id ?? ""}/`)}
        done={() => void client.invalidateQueries({ queryKey: ["unit", unit.id] })}
      >
        What the service itself says counts again, and the instances concerned are started again.
      </Confirm>
    </Card>
  );
}
