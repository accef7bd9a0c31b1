import { Button, Group, Modal, Stack, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus, SlidersHorizontal } from "lucide-react";
import { useState } from "react";
import { useLocation } from "wouter";
import { post } from "~/api/client";
import { unitModels } from "~/api/queries";
import type { UnitModel } from "~/api/types";
import { Card, Head } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { count } from "~/parts/time";

const COLUMNS: Column<UnitModel>[] = [
  { head: "Unit model", cell: (model) => <Named name={model.name} sub={`version ${model.version}`} /> },
  { head: "Unit configuration", cell: (model) => model.unit_config_version ?? "none yet" },
  { head: "Units", number: true, cell: (model) => model.unit_count },
  { head: "Made", number: true, cell: (model) => <Ago at={model.created_at} /> },
];

function NewModel({ close }: { close: () => void }) {
  const client = useQueryClient();
  const [, go] = useLocation();
  const [name, setName] = useState("");
  const [version, setVersion] = useState("1.0");
  const wrong = name.includes(";") ? "Without a semicolon." : null;
  const save = useMutation({
    mutationFn: () => post<UnitModel>("/unit-models/", { name: name.trim(), version: version.trim() }),
    onSuccess: (model) => {
      void client.invalidateQueries({ queryKey: ["unit_model"] });
      close();
      go(`/models/${model.id}`);
    },
  });
  return (
    <Modal opened onClose={close} title="New unit model">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="sm">
          <TextInput
            label="Name"
            description="Exactly as the Units say it."
            value={name}
            error={wrong}
            data-autofocus
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <TextInput
            label="Version"
            value={version}
            onChange={(event) => setVersion(event.currentTarget.value)}
          />
          <Trouble error={save.error} doing="Nothing was made" />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button
              type="submit"
              loading={save.isPending}
              disabled={name.trim() === "" || version.trim() === "" || wrong !== null}
            >
              Make
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

/** Kinds of Units, each with its versioned unit configuration. */
export default function Models() {
  const read = useQuery(unitModels({ limit: 500 }));
  const [making, make] = useDisclosure(false);
  const rows = read.data?.items ?? [];
  return (
    <>
      <Head
        title="Unit models"
        page="Unit models"
        under="Kinds of Units, and the configuration their Nodes get."
      >
        <Button leftSection={<Plus size={14} aria-hidden />} onClick={make.open}>
          New unit model
        </Button>
      </Head>
      <Card title="Unit models" note={read.data && count(read.data.total, "unit model")}>
        {read.isPending && <Loading />}
        {read.error && (
          <div style={{ padding: 16 }}>
            <Trouble
              error={read.error}
              doing="Unit models could not be read"
              retry={() => void read.refetch()}
            />
          </div>
        )}
        {read.data && rows.length === 0 && (
          <Empty
            icon={SlidersHorizontal}
            title="No unit model is known"
            command="aos model add '<name>;1.0' --config unit-config.json"
            action={<Button onClick={make.open}>New unit model</Button>}
          >
            A Unit that joins brings its model along. Make one here to give its Nodes labels and priorities
            beforehand.
          </Empty>
        )}
        {rows.length > 0 && (
          <Table
            label="Unit models"
            columns={COLUMNS}
            rows={rows}
            name={(model) => model.id}
            to={(model) => `/models/${model.id}`}
          />
        )}
      </Card>
      {making && <NewModel close={make.close} />}
    </>
  );
}
