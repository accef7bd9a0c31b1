import { Button } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { CalendarClock, FileJson, Plus, Send, Trash2 } from "lucide-react";
import { useState } from "react";
import { useLocation } from "wouter";
import { path, put, remove } from "~/api/client";
import { modelSchedule, modelUnits, unitConfigs, unitModel } from "~/api/queries";
import type { ModelUnit, UnitModel } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Card, Head } from "~/parts/Room";
import { Ago, CopyIcon, Document, Empty, Facts, Ident, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { count } from "~/parts/time";
import { ScheduleEditor } from "~/rooms/schedule/ScheduleEditor";
import { Told } from "~/rooms/schedule/Told";
import { why } from "~/rooms/unit/phase";
import { Progress } from "~/rooms/unit/Settings";
import { Editor } from "./Editor";
import css from "./models.module.css";

const UNITS: Column<ModelUnit>[] = [
  {
    head: "Unit",
    cell: (row) => <Named name={row.title || row.system_uid} sub={row.title ? row.system_uid : undefined} />,
  },
  {
    head: "Wanted",
    cell: (row) => (
      <Named
        name={row.unit_config.wanted ?? "none"}
        sub={row.unit_config.ordered_for === "unit" ? "for this Unit alone" : undefined}
      />
    ),
  },
  { head: "In force", cell: (row) => row.unit_config.installed ?? "none reported" },
  { head: "State", cell: (row) => <Progress order={row.unit_config} /> },
  {
    head: "Error",
    cell: (row) => (row.unit_config.failed ? why(row.unit_config.failed.error) : "—"),
    bare: (row) => !row.unit_config.failed,
  },
];

/** The Units of a model: which unit configuration is wanted, and which is there. */
function Units({ model }: { model: UnitModel }) {
  const read = useQuery(modelUnits(model.id));
  const rows = read.data?.items ?? [];
  if (model.unit_count === 0 && rows.length === 0) return null;
  return (
    <Card title="Units" note="their unit configurations">
      <Trouble error={read.error} doing="They could not be read" retry={() => void read.refetch()} />
      {read.isPending && <Loading lines={3} />}
      {rows.length > 0 && (
        <Table
          label="Units of the model"
          columns={UNITS}
          rows={rows}
          name={(row) => row.id}
          to={(row) => `/units/${row.id}/settings`}
          mark={(row) => ({ "data-config": row.unit_config.progress })}
        />
      )}
    </Card>
  );
}

function Schedule({ model }: { model: UnitModel }) {
  const read = useQuery(modelSchedule(model.id));
  const [editing, edit] = useDisclosure(false);
  return (
    <Card
      title="When updates may be carried out"
      note="unless a Unit says otherwise"
      inside={read.data !== undefined}
      actions={
        <Button
          size="xs"
          variant="default"
          leftSection={<CalendarClock size={13} aria-hidden />}
          disabled={!read.data}
          onClick={edit.open}
        >
          Set schedule
        </Button>
      }
    >
      <Trouble error={read.error} doing="It could not be read" retry={() => void read.refetch()} />
      {read.isPending && <Loading lines={3} />}
      {read.data && (
        <Facts
          of={[
            ["Software", <Told key="sota" schedule={read.data.sota} none="Nothing said: at once" />],
            ["Firmware", <Told key="fota" schedule={read.data.fota} none="Nothing said: at once" />],
          ]}
        />
      )}
      {editing && read.data && (
        <ScheduleEditor
          at={path`/unit-models/${model.id}/update-schedule/`}
          now={read.data}
          unset="Nothing said: at once"
          close={edit.close}
        />
      )}
    </Card>
  );
}

/** One unit model and all versions of its unit configuration. */
export default function Model({ id }: { id: string }) {
  const [, go] = useLocation();
  const read = useQuery(unitModel(id));
  const configs = useQuery(unitConfigs(id));
  const [chosen, choose] = useState<string | null>(null);
  const [editing, edit] = useDisclosure(false);
  const [deleting, ask] = useDisclosure(false);
  const [ordering, order] = useDisclosure(false);
  const client = useQueryClient();
  const model = read.data;
  const versions = configs.data?.items ?? [];
  const shown = versions.find((each) => each.id === chosen) ?? versions[0];
  if (!model) {
    return (
      <>
        <Head title="Unit model" page="Unit model" trail={[["Unit models", "/models"]]} />
        {read.error ? (
          <Trouble
            error={read.error}
            doing="The unit model could not be read"
            retry={() => void read.refetch()}
          />
        ) : (
          <Loading />
        )}
      </>
    );
  }
  return (
    <>
      <Head
        title={`${model.name} ${model.version}`}
        page={model.name}
        trail={[["Unit models", "/models"]]}
        under={
          <>
            <Ident id={`${model.name};${model.version}`} what="model" />
            <span>{count(model.unit_count, "Unit")}</span>
          </>
        }
      >
        <Button leftSection={<Plus size={14} aria-hidden />} disabled={configs.isPending} onClick={edit.open}>
          New configuration
        </Button>
        <Button variant="default" leftSection={<Trash2 size={14} aria-hidden />} onClick={ask.open}>
          Delete
        </Button>
      </Head>
      <Trouble
        error={configs.error}
        doing="Configurations could not be read"
        retry={() => void configs.refetch()}
      />
      {configs.data && versions.length === 0 && (
        <Card>
          <Empty
            icon={FileJson}
            title="It has no unit configuration yet"
            command={`aos model config '${model.name};${model.version}' unit-config.json`}
            action={<Button onClick={edit.open}>Write the first one</Button>}
          >
            Without one, the Nodes of these Units have no labels and default priorities.
          </Empty>
        </Card>
      )}
      {shown && (
        <div className={css.columns}>
          <Card title="Versions">
            <ul className={css.versions}>
              {versions.map((each, at) => (
                <li key={each.id}>
                  <button type="button" aria-pressed={each.id === shown.id} onClick={() => choose(each.id)}>
                    <span>
                      {each.version}{" "}
                      <small>
                        {[
                          at === 0 ? "newest" : "",
                          each.version === model.ordered_unit_config ? "ordered" : "",
                        ]
                          .filter((word) => word !== "")
                          .join(", ")}
                      </small>
                    </span>
                    <small>
                      <Ago at={each.created_at} />
                    </small>
                  </button>
                </li>
              ))}
            </ul>
          </Card>
          <Card
            title={`Unit configuration ${shown.version}`}
            actions={
              <>
                {shown.version !== model.ordered_unit_config && (
                  <Button
                    size="xs"
                    variant="default"
                    leftSection={<Send size={13} aria-hidden />}
                    onClick={order.open}
                  >
                    Order for all Units
                  </Button>
                )}
                <CopyIcon text={JSON.stringify(shown.unit_config, null, 2)} what="the document" />
              </>
            }
          >
            <Document value={shown.unit_config} label={`Document of version ${shown.version}`} />
          </Card>
        </div>
      )}
      <div className={css.below}>
        <Units model={model} />
        <Schedule model={model} />
      </div>
      {shown && (
        <Confirm
          opened={ordering}
          close={order.close}
          title={`Order unit configuration ${shown.version}?`}
          button={`Order for ${count(model.unit_count, "Unit")}`}
          colour={undefined}
          act={() => put(path`/unit-models/${model.id}/unit-config/`, { version: shown.version })}
          done={() => void client.invalidateQueries()}
        >
          All Units of this model get it, also those that had one of their own. A Unit takes no version below
          the one it has in force.
        </Confirm>
      )}
      {editing && (
        <Editor
          model={id}
          last={versions[0]?.unit_config ?? null}
          version={versions[0]?.version ?? null}
          close={edit.close}
        />
      )}
      <Confirm
        opened={deleting}
        close={ask.close}
        title={`Delete ${model.name} ${model.version}?`}
        button="Delete the unit model"
        act={() => remove(path`/unit-models/${model.id}/`)}
        done={() => go("/models")}
      >
        All its configurations go with it. A model that Units have cannot be deleted.
      </Confirm>
    </>
  );
}
