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
  const [encryption, setEncryption] = useState(unit.blob_encryption ?? "model");
  const save = useMutation({
    mutationFn: () =>
      patch<Unit>(path`/units/${unit.id}/`, {
        ...(title.trim() === unit.title ? {} : { title: title.trim() }),
        ...(encryption === (unit.blob_encryption ?? "model") ? {} : { blob_encryption: encryption }),
        ...(model === null || model === unit.unit_model?.id ? {} : { unit_model: model }),
      }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["unit"] });
      close();
    },
  });
  return (
    <Modal opened={opened} onClose={close} title="Name, model and delivery">
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
            description="The unit configuration ordered for it becomes part of the desired state."
            data={(models.data?.items ?? []).map((each) => ({
              value: each.id,
              label: `${each.name} ${each.version}`,
            }))}
            value={model}
            onChange={setModel}
            searchable
            nothingFoundMessage="No such unit model"
          />
          <Select
            label="Delivery of blobs"
            description="Encrypted blobs need a Unit whose offline key is RSA."
            allowDeselect={false}
            data={[
              { value: "model", label: "As its unit model says" },
              { value: "on", label: "Encrypted for this Unit" },
              { value: "off", label: "Plain, within TLS" },
            ]}
            value={encryption}
            onChange={(value) => value && setEncryption(value as Unit["blob_encryption"] & string)}
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
