import { Button, Group, Modal, Stack } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Trouble } from "./small";

/** Asks before something that cannot be taken back, and says what it does. */
export function Confirm(properties: {
  opened: boolean;
  close: () => void;
  title: string;
  children: ReactNode;
  button: string;
  /** Of the button; red if nothing is said. */
  colour?: string | undefined;
  act: () => Promise<unknown>;
  done?: () => void;
}) {
  const colour = "colour" in properties && !properties.colour ? {} : { color: properties.colour ?? "red" };
  const act = useMutation({
    mutationFn: properties.act,
    onSuccess: () => {
      properties.close();
      properties.done?.();
    },
  });
  return (
    <Modal
      opened={properties.opened}
      onClose={() => {
        act.reset();
        properties.close();
      }}
      title={properties.title}
    >
      <Stack gap="md">
        <div>{properties.children}</div>
        <Trouble error={act.error} />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" data-autofocus onClick={properties.close}>
            Cancel
          </Button>
          <Button {...colour} loading={act.isPending} onClick={() => act.mutate()}>
            {properties.button}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
