import { Button, TextInput } from "@mantine/core";
import { useDebouncedValue, useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Plus, Search, Share2 } from "lucide-react";
import { useState } from "react";
import { subjects } from "~/api/queries";
import type { Subject, SubjectService } from "~/api/types";
import parts from "~/parts/parts.module.css";
import { Card, Head } from "~/parts/Room";
import { Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { count, who } from "~/parts/time";
import { NewAssignment } from "./NewAssignment";
import { told } from "./overrides";

const SHOWN = 5;

function Brings({ services }: { services: SubjectService[] }) {
  if (services.length === 0) return <span className={parts.faint}>no service</span>;
  return (
    <span className={parts.chips}>
      {services.slice(0, SHOWN).map((entry) => (
        <span
          key={entry.service.id}
          className={parts.chip}
          title={told(entry.overrides).join(", ") || "as configured"}
        >
          {entry.service.title || entry.service.codename}
          {entry.overrides.num_instances != null && <b>×{entry.overrides.num_instances}</b>}
        </span>
      ))}
      {services.length > SHOWN && <span className={parts.chip}>+{services.length - SHOWN}</span>}
    </span>
  );
}

const COLUMNS: Column<Subject>[] = [
  {
    head: "Assignment",
    cell: (subject) => <Named name={subject.label} sub={subject.is_group ? "Group of Units" : "Person"} />,
  },
  { head: "Services", cell: (subject) => <Brings services={subject.services} /> },
  { head: "Units", number: true, cell: (subject) => subject.unit_count },
  { head: "Priority", number: true, cell: (subject) => subject.priority },
  { head: "Made by", number: true, cell: (subject) => who(subject.created_by) },
];

/** All assignments: Subjects with their services and Units. */
export default function Assignments() {
  const [text, setText] = useState("");
  const [search] = useDebouncedValue(text.trim(), 160);
  const [making, make] = useDisclosure(new URLSearchParams(window.location.search).has("new"));
  const read = useQuery(subjects({ search, limit: 500 }));
  const rows = read.data?.items ?? [];
  return (
    <>
      <Head
        title="Assignments"
        page="Assignments"
        under="What runs on which Units, and how many instances of it."
      >
        <Button leftSection={<Plus size={14} aria-hidden />} onClick={make.open}>
          New assignment
        </Button>
      </Head>
      <Card
        title="Assignments"
        note={read.data && count(read.data.total, "assignment")}
        actions={
          <TextInput
            type="search"
            size="xs"
            aria-label="Find assignments by name"
            placeholder="Name"
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
              doing="Assignments could not be read"
              retry={() => void read.refetch()}
            />
          </div>
        )}
        {read.data &&
          rows.length === 0 &&
          (search === "" ? (
            <Empty
              icon={Share2}
              title="Nothing is assigned"
              command="aos assign <service> --unit <system id> --instances 2"
              action={<Button onClick={make.open}>New assignment</Button>}
            >
              An assignment (a Subject) binds services to Units. Each Unit in it gets the newest version of
              each service, and keeps it up to date.
            </Empty>
          ) : (
            <Empty icon={Search} title={`No assignment is called “${search}”`} small />
          ))}
        {rows.length > 0 && (
          <Table
            label="Assignments"
            columns={COLUMNS}
            rows={rows}
            name={(subject) => subject.id}
            to={(subject) => `/assignments/${subject.id}`}
            mark={(subject) => ({ "data-subject": subject.label })}
          />
        )}
      </Card>
      {making && <NewAssignment close={make.close} />}
    </>
  );
}
