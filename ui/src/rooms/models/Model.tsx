import { Button } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { FileJson, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { useLocation } from "wouter";
import { path, remove } from "~/api/client";
import { unitConfigs, unitModel } from "~/api/queries";
import { Confirm } from "~/parts/Confirm";
import { Card, Head } from "~/parts/Room";
import { Ago, CopyIcon, Document, Empty, Ident, Loading, Trouble } from "~/parts/small";
import { count } from "~/parts/time";
import { Editor } from "./Editor";
import css from "./models.module.css";

/** One unit model and all versions of its unit configuration. */
export default function Model({ id }: { id: string }) {
  const [, go] = useLocation();
  const read = useQuery(unitModel(id));
  const configs = useQuery(unitConfigs(id));
  const [chosen, choose] = useState<string | null>(null);
  const [editing, edit] = useDisclosure(false);
  const [deleting, ask] = useDisclosure(false);
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
                      {each.version} {at === 0 && <small>newest</small>}
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
            actions={<CopyIcon text={JSON.stringify(shown.unit_config, null, 2)} what="the document" />}
          >
            <Document value={shown.unit_config} label={`Document of version ${shown.version}`} />
          </Card>
        </div>
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
