import { Button, Group, Modal, Select, Stack, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { KeyRound, Plus } from "lucide-react";
import { useState } from "react";
import { Link } from "wouter";
import { path, post, remove } from "~/api/client";
import { claimCodes, unit as readUnit, unitModels } from "~/api/queries";
import type { ClaimCode, IssuedClaimCode } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Mark } from "~/parts/Mark";
import { Card, Head } from "~/parts/Room";
import { Ago, Command, Empty, Facts, Ident, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { count, full, who } from "~/parts/time";

const LASTS = [
  { value: "60", label: "1 hour" },
  { value: "1440", label: "1 day" },
  { value: "10080", label: "7 days" },
  { value: "43200", label: "30 days" },
];

function Issued({ issued, close }: { issued: IssuedClaimCode; close: () => void }) {
  // The Unit that uses the code appears here while one looks: the list is live.
  const list = useQuery(claimCodes({ limit: 500 }));
  const now = list.data?.items.find((each) => each.id === issued.claim_code.id);
  const unit = useQuery({ ...readUnit(now?.unit_id ?? ""), enabled: !!now?.unit_id });
  return (
    <Stack gap="md">
      <p>
        Type this on the main Node of the Unit, as root. <strong>It is shown only now</strong> and works once,
        until {full(issued.claim_code.expires_at)}.
      </p>
      <Command text={issued.join_command} />
      <Facts
        of={[
          ["Claim code", <Ident key="c" id={issued.code} what="claim code" />],
          ["Root certificate", <Ident key="f" id={issued.ca_fingerprint} what="fingerprint" />],
        ]}
      />
      <div role="status">
        {now?.state === "used" ? (
          <Mark
            state="used"
            tone="good"
            word={
              <>
                {now.unit_id ? (
                  <Link href={`/units/${now.unit_id}`}>
                    {unit.data?.title || unit.data?.system_uid || "The Unit"}
                  </Link>
                ) : (
                  "The Unit"
                )}{" "}
                has joined
              </>
            }
          />
        ) : (
          <Mark state="waiting" tone="busy" word="Waiting for the Unit to join" />
        )}
      </div>
      <Group justify="flex-end">
        <Button onClick={close}>Close</Button>
      </Group>
    </Stack>
  );
}

function NewCode({ close }: { close: () => void }) {
  const client = useQueryClient();
  const models = useQuery(unitModels({ limit: 1000 }));
  const [title, setTitle] = useState("");
  const [system, setSystem] = useState("");
  const [model, setModel] = useState<string | null>(null);
  const [lasts, setLasts] = useState<string | null>("1440");
  const make = useMutation({
    mutationFn: () =>
      post<IssuedClaimCode>("/claim-codes/", {
        title: title.trim(),
        ...(model ? { unit_model: model } : {}),
        ...(system.trim() === "" ? {} : { system_uid: system.trim() }),
        expires_in_minutes: Number(lasts ?? "1440"),
      }),
    onSuccess: () => void client.invalidateQueries({ queryKey: ["claim_code"] }),
  });
  return (
    <Modal
      opened
      onClose={close}
      title="Add a Unit"
      size="lg"
      closeOnClickOutside={!make.data}
      closeOnEscape={!make.data}
    >
      {make.data ? (
        <Issued issued={make.data} close={close} />
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            make.mutate();
          }}
        >
          <Stack gap="sm">
            <p>A claim code lets one Unit join this cloud. All fields may stay as they are.</p>
            <TextInput
              label="Name"
              description="What the Unit is called here."
              value={title}
              data-autofocus
              onChange={(event) => setTitle(event.currentTarget.value)}
            />
            <Select
              label="Unit model"
              description="If none is chosen, the model that the Unit says."
              data={(models.data?.items ?? []).map((each) => ({
                value: each.id,
                label: `${each.name} ${each.version}`,
              }))}
              value={model}
              onChange={setModel}
              searchable
              clearable
              nothingFoundMessage="No such unit model"
            />
            <TextInput
              label="Only for this system id"
              description="If set, no other Unit can use the code."
              value={system}
              onChange={(event) => setSystem(event.currentTarget.value)}
            />
            <Select label="Works for" data={LASTS} value={lasts} onChange={setLasts} allowDeselect={false} />
            <Trouble error={make.error} doing="No code was made" />
            <Group justify="flex-end" gap="xs">
              <Button variant="default" onClick={close}>
                Cancel
              </Button>
              <Button type="submit" loading={make.isPending}>
                Make the code
              </Button>
            </Group>
          </Stack>
        </form>
      )}
    </Modal>
  );
}

/** Codes with which Units join. */
export default function ClaimCodes() {
  const read = useQuery(claimCodes({ limit: 500 }));
  const client = useQueryClient();
  const [making, make] = useDisclosure(new URLSearchParams(window.location.search).has("new"));
  const [removing, take] = useState<ClaimCode | null>(null);
  const rows = read.data?.items ?? [];
  const columns: Column<ClaimCode>[] = [
    {
      head: "For",
      cell: (code) => (
        <Named
          name={code.title || "any Unit"}
          sub={code.system_uid ? `only ${code.system_uid}` : undefined}
        />
      ),
    },
    { head: "State", cell: (code) => <Mark state={code.state} /> },
    {
      head: "Model",
      cell: (code) =>
        code.unit_model ? `${code.unit_model.name} ${code.unit_model.version}` : "as the Unit says",
    },
    {
      head: "Unit",
      cell: (code) => (code.unit_id ? <Link href={`/units/${code.unit_id}`}>its Unit</Link> : "—"),
      bare: (code) => !code.unit_id,
    },
    { head: "Made by", cell: (code) => who(code.created_by) },
    {
      head: "Ends",
      number: true,
      cell: (code) =>
        code.used_at ? (
          <>
            used <Ago at={code.used_at} />
          </>
        ) : (
          <Ago at={code.expires_at} />
        ),
    },
    {
      head: "",
      number: true,
      cell: (code) => (
        <Button
          variant="subtle"
          color="red"
          size="compact-sm"
          aria-label={`${code.state === "open" ? "Revoke" : "Delete"} the code for ${code.title || "any Unit"}`}
          onClick={() => take(code)}
        >
          {code.state === "open" ? "Revoke" : "Delete"}
        </Button>
      ),
    },
  ];
  return (
    <>
      <Head title="Claim codes" page="Claim codes" under="With a code a Unit joins by itself; it works once.">
        <Button leftSection={<Plus size={14} aria-hidden />} onClick={make.open}>
          New claim code
        </Button>
      </Head>
      <Card title="Claim codes" note={read.data && count(read.data.total, "code")}>
        {read.isPending && <Loading />}
        {read.error && (
          <div style={{ padding: 16 }}>
            <Trouble
              error={read.error}
              doing="Claim codes could not be read"
              retry={() => void read.refetch()}
            />
          </div>
        )}
        {read.data && rows.length === 0 && (
          <Empty
            icon={KeyRound}
            title="No claim code was made"
            action={<Button onClick={make.open}>New claim code</Button>}
          >
            Make one for each Unit that shall join. You get the command to type on the Unit's main Node.
          </Empty>
        )}
        {rows.length > 0 && (
          <Table label="Claim codes" columns={columns} rows={rows} name={(code) => code.id} />
        )}
      </Card>
      {making && <NewCode close={make.close} />}
      <Confirm
        opened={removing !== null}
        close={() => take(null)}
        title={`Delete the code for ${removing?.title || "any Unit"}?`}
        button="Delete the code"
        act={() => remove(path`/claim-codes/${removing?.id ?? ""}/`)}
        done={() => void client.invalidateQueries({ queryKey: ["claim_code"] })}
      >
        Nobody can join with it any more. A Unit that has joined with it is not touched.
      </Confirm>
    </>
  );
}
