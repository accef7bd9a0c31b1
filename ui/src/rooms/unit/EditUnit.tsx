import { Button, Group, Modal, Select, Stack, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { patch, path } from "~/api/client";
import { unitModels } from "~/api/queries";
import type { Unit } from "~/api/types";
import { Trouble } from "~/parts/small";

/** Name and model of a Unit. */
export function EditUnit({ unit, opened, close }: { unit: Unit; opened: boolean; close: () => void }) {
  const client = useQueryClient();
  const models = useQuery({ ...unitModels({ limit: 1000 }), enabled: opened });
  const [title, setTitle] = useState(unit.title);
  const [model, setModel] = useState(unit.unit_model?.id ?? null);
  const save = useMutation({
    mutationFn: () =>
      patch<Unit>(path`/units/${unit.id}/`, {
        ...(title.trim() === unit.title ? {} : { title: title.trim() }),
        ...(model === null || model === unit.unit_model?.id ? {} : { unit_model: model }),
      }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["unit"] });
      close();
    },
  });
  return (
    <Modal opened={opened} onClose={close} title="Name and model">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="sm">
          <TextInput
            label="Name"
            description="For people. Empty: the system id is shown."
            value={title}
            data-autofocus
            onChange={(event) => setTitle(event.currentTarget.value)}
          />
          <Select
            label="Unit model"
            description="Its newest unit configuration becomes part of the desired state."
            data={(models.data?.items ?? []).map((each) => ({
              value: each.id,
              label: `${each.name} ${each.version}`,
            }))}
            value={model}
            onChange={setModel}
            searchable
            nothingFoundMessage="No such unit model"
          />
          <Trouble error={save.error ?? models.error} />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
