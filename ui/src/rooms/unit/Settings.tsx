import { Button, Group, Modal, Select, Stack } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { CalendarClock, FileJson, Pencil, UsersRound } from "lucide-react";
import { type ReactNode, useState } from "react";
import { Link } from "wouter";
import { path, put, remove } from "~/api/client";
import { unitConfigOrder, unitConfigs, unitSchedules, unitSubjects } from "~/api/queries";
import type { Unit, UnitConfigOrder, UnitSubject, UpdateSchedule } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Empty, Facts, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { NewAssignment } from "~/rooms/assignments/NewAssignment";
import { ScheduleEditor } from "~/rooms/schedule/ScheduleEditor";
import { Told } from "~/rooms/schedule/Told";
import { EnvVars } from "./EnvVars";
import { why } from "./phase";
import css from "./unit.module.css";

/** How far a Unit is with the unit configuration that is ordered. */
export function Progress({ order }: { order: UnitConfigOrder }) {
  switch (order.progress) {
    case "installed":
      return <Mark state="installed" />;
    case "failed":
      return <Mark state="failed" />;
    case "waiting":
      return <Mark state="waiting" tone="busy" word="Not there yet" />;
    default:
      return <Mark state="none" word="None ordered" />;
  }
}

function Order({ unit, order, close }: { unit: Unit; order: UnitConfigOrder; close: () => void }) {
  const client = useQueryClient();
  const configs = useQuery(unitConfigs(unit.unit_model?.id ?? ""));
  const [version, choose] = useState(order.wanted ?? null);
  const save = useMutation({
    mutationFn: () =>
      version === AS_MODEL
        ? remove(path`/units/${unit.id}/unit-config/`)
        : put(path`/units/${unit.id}/unit-config/`, { version }),
    onSuccess: () => {
      void client.invalidateQueries();
      close();
    },
  });
  const versions = (configs.data?.items ?? []).map((each) => ({ value: each.version, label: each.version }));
  return (
    <Modal opened onClose={close} title="Order a unit configuration">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="sm">
          <Select
            label="Version for this Unit"
            description="A Unit takes no version below the one it has in force."
            data={[
              ...(order.ordered_for === "unit"
                ? [{ value: AS_MODEL, label: "As ordered for its unit model" }]
                : []),
              ...versions,
            ]}
            value={version}
            onChange={choose}
            allowDeselect={false}
            data-autofocus
          />
          <Trouble error={save.error ?? configs.error} doing="Nothing was ordered" />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending} disabled={version === null}>
              Order
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
type MaybeSchedule = UpdateSchedule | null | undefined;
const AS_MODEL = "as-model";

function Configuration({ unit }: { unit: Unit }) {
  const read = useQuery(unitConfigOrder(unit.id));
  const [ordering, order] = useDisclosure(false);
  const told = read.data;
  return (
    <Card
      title="Unit configuration"
      inside={told !== undefined && unit.unit_model !== null}
      actions={
        unit.unit_model && (
          <Button size="xs" variant="default" disabled={!told} onClick={order.open}>
            Order a version
          </Button>
        )
      }
    >
      <Trouble error={read.error} doing="It could not be read" retry={() => void read.refetch()} />
      {!unit.unit_model && (
        <Empty icon={FileJson} title="The Unit has no unit model" small>
          Unit configurations belong to unit models. Give it one under Name and model.
        </Empty>
      )}
      {read.isPending && <Loading lines={3} />}
      {told && unit.unit_model && (
        <div data-config={told.progress}>
          <Facts
            of={[
              [
                "Wanted",
                <span key="wanted" className={css.both}>
                  {told.wanted} <Progress order={told} />
                </span>,
              ],
              ...(told.wanted
                ? [
                    [
                      "Ordered for",
                      told.ordered_for === "unit" ? (
                        "this Unit alone"
                      ) : (
                        <span key="for">
                          all Units of{" "}
                          <Link href={`/models/${unit.unit_model.id}`}>
                            {unit.unit_model.name} {unit.unit_model.version}
                          </Link>
                        </span>
                      ),
                    ] as [string, ReactNode],
                  ]
                : []),
              ["In force", told.installed ?? "none reported"],
            ]}
          />
          {told.failed && (
            <p className={css.nodeError}>
              Version {told.failed.version} failed: {why(told.failed.error)}
            </p>
          )}
        </div>
      )}
      {ordering && told && <Order unit={unit} order={told} close={order.close} />}
    </Card>
  );
}

function Schedules({ unit }: { unit: Unit }) {
  const read = useQuery(unitSchedules(unit.id));
  const [editing, edit] = useDisclosure(false);
  const told = read.data;
  const part = (force: MaybeSchedule, own: MaybeSchedule, model: MaybeSchedule) => (
    <>
      <Told schedule={force} none="At once" />
      <span className={css.faint}>
        {own ? "said for this Unit" : model ? "said for its unit model" : "nothing said"}
      </span>
    </>
  );
  return (
    <Card
      title="When updates may be carried out"
      inside={told !== undefined}
      actions={
        <Button
          size="xs"
          variant="default"
          leftSection={<CalendarClock size={13} aria-hidden />}
          disabled={!told}
          onClick={edit.open}
        >
          Set schedule
        </Button>
      }
    >
      <Trouble error={read.error} doing="It could not be read" retry={() => void read.refetch()} />
      {read.isPending && <Loading lines={3} />}
      {told && (
        <div data-schedule={told.in_force.sota?.type ?? "none"}>
          <Facts
            of={[
              ["Software", part(told.in_force.sota, told.own.sota, told.of_model.sota)],
              ["Firmware", part(told.in_force.fota, told.own.fota, told.of_model.fota)],
            ]}
          />
        </div>
      )}
      {editing && told && (
        <ScheduleEditor
          at={path`/units/${unit.id}/update-schedule/`}
          now={told.own}
          unset="As its unit model says"
          close={edit.close}
        />
      )}
    </Card>
  );
}

function Subjects({ unit }: { unit: Unit }) {
  const read = useQuery(unitSubjects(unit.id));
  const [assigning, assign] = useState<UnitSubject | null>(null);
  const columns: Column<UnitSubject>[] = [
    {
      head: "Subject",
      cell: (row) =>
        row.id ? (
          <Link href={`/assignments/${row.id}`}>{row.label}</Link>
        ) : (
          <Named name={row.label} sub="not known here yet" />
        ),
    },
    {
      head: "How it came",
      cell: (row) =>
        [
          row.member ? "the Unit was put into it" : "",
          row.reported_as ? `${row.reported ? "reported" : "not reported now"} as ${row.reported_as}` : "",
        ]
          .filter((text) => text !== "")
          .join("; "),
    },
    { head: "Services", number: true, cell: (row) => row.service_count },
    {
      head: "",
      cell: (row) =>
        row.id === null || row.id === undefined ? (
          <Button
            size="compact-sm"
            variant="default"
            leftSection={<Pencil size={12} aria-hidden />}
            onClick={() => assign(row)}
          >
            Assign services
          </Button>
        ) : null,
    },
  ];
  return (
    <Card title="Subjects" note="that concern this Unit">
      <Trouble error={read.error} doing="They could not be read" retry={() => void read.refetch()} />
      {read.isPending && <Loading lines={3} />}
      {read.data?.items.length === 0 && (
        <Empty icon={UsersRound} title="No Subject concerns this Unit" small>
          An assignment puts the Unit into one. A Subject that the Unit reports by itself, such as a driver
          who signed in, is shown here too.
        </Empty>
      )}
      {read.data && read.data.items.length > 0 && (
        <Table
          label="Subjects of the Unit"
          columns={columns}
          rows={read.data.items}
          name={(row) => row.id ?? row.label}
        />
      )}
      {assigning && (
        <NewAssignment
          close={() => assign(null)}
          label={assigning.label}
          reportedAs={assigning.reported_as ?? assigning.label}
        />
      )}
    </Card>
  );
}

/** What is ordered of a Unit beside services. */
export function Settings({ unit }: { unit: Unit }) {
  return (
    <div className={css.column}>
      <div className={css.pair}>
        <Configuration unit={unit} />
        <Schedules unit={unit} />
      </div>
      <EnvVars unit={unit} />
      <Subjects unit={unit} />
    </div>
  );
}
