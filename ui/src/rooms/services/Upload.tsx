import { Button, Checkbox, Group, Modal, Stack } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { FileArchive } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { Link } from "wouter";
import { upload } from "~/api/client";
import { bundle as readBundle } from "~/api/queries";
import parts from "~/parts/parts.module.css";
import { Command, Trouble } from "~/parts/small";
import { bytes } from "~/parts/time";
import { Stages } from "./Stages";
import css from "./services.module.css";

/** Uploads a signed bundle and follows it through its stages. */
export function Upload({ close }: { close: () => void }) {
  const client = useQueryClient();
  const [file, setFile] = useState<File | null>(null);
  const [check, setCheck] = useState(false);
  const [sent, setSent] = useState<{ now: number; all: number } | null>(null);
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const abort = useRef<AbortController | null>(null);
  const send = useMutation({
    mutationFn: (chosen: File) => {
      abort.current = new AbortController();
      setSent({ now: 0, all: chosen.size });
      return upload(chosen, check, (now, all) => setSent({ now, all }), abort.current.signal);
    },
    onSuccess: (made) => client.setQueryData(readBundle(made.id).queryKey, made),
    onSettled: () => void client.invalidateQueries({ queryKey: ["bundle", "list"] }),
  });
  useEffect(() => () => abort.current?.abort(), []);
  // A check keeps nothing, so there is nothing to read again.
  const follow = useQuery({
    ...readBundle(send.data?.id ?? ""),
    enabled: send.data !== undefined && !send.data.is_check,
  });
  const made = follow.data ?? send.data;
  const cancelled = send.error instanceof DOMException && send.error.name === "AbortError";
  const percent = sent ? Math.round((sent.now / Math.max(1, sent.all)) * 100) : 0;

  return (
    <Modal opened onClose={close} title={made?.is_check ? "Check of a bundle" : "Upload a bundle"} size="lg">
      <Stack gap="md">
        {!made && (
          <>
            {/* biome-ignore lint/a11y/noStaticElementInteractions: dropping is an extra, the button below does the same */}
            <div
              className={css.drop}
              data-over={over || undefined}
              onDragOver={(event) => {
                event.preventDefault();
                setOver(true);
              }}
              onDragLeave={() => setOver(false)}
              onDrop={(event) => {
                event.preventDefault();
                setOver(false);
                setFile(event.dataTransfer.files[0] ?? null);
              }}
            >
              <FileArchive size={26} strokeWidth={1.4} aria-hidden />
              {file ? (
                <p>
                  <b>{file.name}</b> <span className={parts.faint}>{bytes(file.size)}</span>
                </p>
              ) : (
                <p>
                  Drop a signed bundle here: the <code>.tar.gz</code> that <code>aos bundle sign</code> wrote.
                </p>
              )}
              <input
                ref={input}
                type="file"
                hidden
                accept=".gz,.tgz,application/gzip"
                data-upload
                onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)}
              />
              <Button variant="default" size="xs" data-autofocus onClick={() => input.current?.click()}>
                {file ? "Choose another file" : "Choose a file"}
              </Button>
            </div>
            <Checkbox
              label="Only check it"
              description="All stages but the last: nothing is published, nothing is kept."
              checked={check}
              onChange={(event) => setCheck(event.currentTarget.checked)}
            />
            {send.isPending && sent && (
              <div>
                <div
                  className={parts.bar}
                  role="progressbar"
                  aria-label="Upload"
                  aria-valuenow={percent}
                  aria-valuemin={0}
                  aria-valuemax={100}
                >
                  <div style={{ width: `${percent}%` }} />
                </div>
                <p className={css.sent}>
                  {bytes(sent.now)} of {bytes(sent.all)}, {percent} %
                </p>
              </div>
            )}
            {!cancelled && <Trouble error={send.error} doing="Nothing was uploaded" />}
            <details className={css.more}>
              <summary>On the command line</summary>
              <Command text="aos bundle push <folder>" />
            </details>
            <Group justify="flex-end" gap="xs">
              <Button variant="default" onClick={() => (send.isPending ? abort.current?.abort() : close())}>
                Cancel
              </Button>
              <Button disabled={!file} loading={send.isPending} onClick={() => file && send.mutate(file)}>
                {check ? "Check" : "Upload"}
              </Button>
            </Group>
          </>
        )}
        {made && (
          <>
            <Stages bundle={made} />
            <Group justify="flex-end" gap="xs">
              {made.state === "error" && (
                <Button
                  variant="default"
                  onClick={() => {
                    send.reset();
                    setSent(null);
                    setFile(null);
                  }}
                >
                  Choose another file
                </Button>
              )}
              {made.items[0]?.service_id && made.state === "done" && !made.is_check && (
                <Button component={Link} href={`/services/${made.items[0].service_id}`} variant="default">
                  Go to {made.items[0].title || made.items[0].codename}
                </Button>
              )}
              <Button onClick={close}>Close</Button>
            </Group>
          </>
        )}
      </Stack>
    </Modal>
  );
}
