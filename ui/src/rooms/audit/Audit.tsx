import { Button, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { ScrollText, Search } from "lucide-react";
import { useState } from "react";
import { Link } from "wouter";
import { audit } from "~/api/queries";
import type { AuditEntry } from "~/api/types";
import { Card, Head } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Table } from "~/parts/Table";
import { who } from "~/parts/time";

const PAGE = 100;
const MOST = 1000;

const ROOMS: Record<string, string> = {
  unit: "/units",
  service: "/services",
  bundle: "/bundles",
  subject: "/assignments",
  "unit-model": "/models",
};

/** What was changed: its kind and the end of its id, leading there where there is a room for it. */
function Target({ target }: { target: string }) {
  const [kind = "", id = ""] = target.split(/:(.*)/s);
  const short = id.length === 36 ? `…${id.slice(-12)}` : id;
  const name = (
    <span title={target}>
      {kind} <code>{short}</code>
    </span>
  );
  const room = ROOMS[kind];
  return room && id !== "" ? <Link href={`${room}/${id}`}>{name}</Link> : name;
}

const COLUMNS: Column<AuditEntry>[] = [
  { head: "Who", cell: (entry) => who(entry.actor) },
  { head: "What", cell: (entry) => <code>{entry.action}</code> },
  { head: "To what", cell: (entry) => <Target target={entry.target} /> },
  { head: "More", cell: (entry) => entry.detail || "—", bare: (entry) => entry.detail === "" },
  { head: "When", number: true, cell: (entry) => <Ago at={entry.at} /> },
];

/** Who changed what, newest first. */
export default function Audit() {
  const [text, setText] = useState("");
  const [limit, setLimit] = useState(PAGE);
  const [search] = useDebouncedValue(text.trim(), 160);
  const read = useQuery(audit({ search, limit }));
  const rows = read.data?.items ?? [];
  return (
    <>
      <Head title="Audit" page="Audit" under="Who changed what, newest first." />
      <Card
        title="Audit"
        actions={
          <TextInput
            type="search"
            size="xs"
            aria-label="Find in the audit"
            placeholder="Who, what, id"
            leftSection={<Search size={13} aria-hidden />}
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
          />
        }
      >
        {read.isPending && <Loading />}
        {read.error && (
          <div style={{ padding: 16 }}>
            <Trouble
              error={read.error}
              doing="The audit could not be read"
              retry={() => void read.refetch()}
            />
          </div>
        )}
        {read.data && rows.length === 0 && (
          <Empty icon={ScrollText} title="Nothing to show" small>
            {search === ""
              ? "Each change that people and Units make is written down here."
              : `Nothing holds “${search}”.`}
          </Empty>
        )}
        {rows.length > 0 && (
          <Table label="Audit" columns={COLUMNS} rows={rows} name={(entry) => String(entry.id)} />
        )}
        {read.data && read.data.total > rows.length && limit < MOST && (
          <div style={{ padding: 12, textAlign: "center" }}>
            <Button
              variant="default"
              loading={read.isFetching}
              onClick={() => setLimit(Math.min(MOST, limit + 2 * PAGE))}
            >
              Show older
            </Button>
          </div>
        )}
      </Card>
    </>
  );
}
