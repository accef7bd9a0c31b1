import { Button, Checkbox, Group, Modal, Stack } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useId, useMemo, useRef, useState } from "react";
import { path, post } from "~/api/client";
import { Trouble } from "~/parts/small";
import { check, next } from "./document";
import css from "./models.module.css";

/** Writes the next version of a unit configuration. What is wrong is said while one types. */
export function Editor(properties: {
  model: string;
  last: unknown;
  version: string | null;
  close: () => void;
}) {
  const { model, last, version, close } = properties;
  const client = useQueryClient();
  const [text, setText] = useState(() => next(last, version));
  const [order, setOrder] = useState(true);
  const gutter = useRef<HTMLPreElement>(null);
  const said = useId();
  const checked = useMemo(() => check(text, version), [text, version]);
  const lines = text.split("\n").length;
  const save = useMutation({
    mutationFn: async () => {
      if ("value" in checked)
        await post(path`/unit-models/${model}/unit-configs/`, {
          unit_config: checked.value,
          ...(order ? {} : { order }),
        });
    },
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["unit_model"] });
      close();
    },
  });
  return (
    <Modal
      opened
      onClose={close}
      title="New version of the unit configuration"
      size="xl"
      closeOnClickOutside={false}
    >
      <Stack gap="sm">
        <p className={css.about}>
          Node groups and Nodes of this model get their labels, priority, resource ratios and alert rules from
          here. Units check it before they apply it.
        </p>
        <div className={css.editor} data-wrong={"wrong" in checked || undefined}>
          <pre ref={gutter} aria-hidden="true">
            {Array.from({ length: lines }, (_, at) => at + 1).join("\n")}
          </pre>
          <textarea
            aria-label="Unit configuration, JSON"
            aria-describedby={said}
            aria-invalid={"wrong" in checked}
            data-autofocus
            spellCheck={false}
            autoComplete="off"
            wrap="off"
            rows={Math.min(24, Math.max(12, lines))}
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            onScroll={(event) => {
              if (gutter.current) gutter.current.scrollTop = event.currentTarget.scrollTop;
            }}
          />
        </div>
        <p id={said} className={css.verdict} data-wrong={"wrong" in checked || undefined} role="status">
          {"wrong" in checked
            ? checked.wrong
            : `Version ${String(checked.value.version)}${version ? `, after ${version}` : ""}. ${order ? "The Units of this model get it at once." : "No Unit gets it until it is ordered."}`}
        </p>
        <Checkbox
          label="Order it for all Units of this model at once"
          checked={order}
          onChange={(event) => setOrder(event.currentTarget.checked)}
        />
        <Trouble error={save.error} doing="Nothing was stored" />
        <Group justify="space-between" gap="xs">
          <Button
            variant="subtle"
            disabled={"wrong" in checked}
            onClick={() => "value" in checked && setText(`${JSON.stringify(checked.value, null, 2)}\n`)}
          >
            Format
          </Button>
          <Group gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button disabled={"wrong" in checked} loading={save.isPending} onClick={() => save.mutate()}>
              Store version
            </Button>
          </Group>
        </Group>
      </Stack>
    </Modal>
  );
}
