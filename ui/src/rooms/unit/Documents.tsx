import { useQuery } from "@tanstack/react-query";
import { FileJson, Package, ShieldCheck } from "lucide-react";
import { unitCertificates } from "~/api/queries";
import type { DesiredState, UnitCertificate, UnitItem } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Ago, CopyIcon, Document, Empty, Facts, Ident, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { why } from "./phase";

const ITEMS: Column<UnitItem>[] = [
  {
    head: "Deployable Item",
    cell: (item) => (
      <Named
        name={item.service?.title || item.service?.codename || item.item_id}
        sub={item.service ? item.service.codename : undefined}
      />
    ),
  },
  { head: "Type", cell: (item) => item.item_type },
  { head: "Version", cell: (item) => item.version },
  { head: "State", cell: (item) => <Mark state={item.state} /> },
  { head: "Desired", cell: (item) => (item.desired ? "yes" : "no") },
  { head: "Error", cell: (item) => (item.error ? why(item.error) : "—"), bare: (item) => !item.error },
  { head: "Reported", number: true, cell: (item) => <Ago at={item.changed_at} /> },
];

/** Every version of every Deployable Item the Unit reports. */
export function Items({ items }: { items: UnitItem[] | undefined }) {
  return (
    <Card title="Deployable Items" note="as the Unit reports them">
      {!items && <Loading />}
      {items?.length === 0 && (
        <Empty icon={Package} title="The Unit reports no Deployable Item" small>
          Items appear here while the Unit downloads and installs what is desired.
        </Empty>
      )}
      {items && items.length > 0 && (
        <Table
          label="Deployable Items"
          columns={ITEMS}
          rows={items}
          name={(item) => `${item.item_id}/${item.version}`}
          mark={(item) => ({ "data-item": item.item_id, "data-state": item.state })}
        />
      )}
    </Card>
  );
}

/** The desired state last composed, as it is sent. */
export function Desired({
  desired,
  pending,
}: {
  desired: DesiredState | null | undefined;
  pending: boolean;
}) {
  if (!desired) {
    return (
      <Card title="Desired state">
        {pending ? (
          <Loading />
        ) : (
          <Empty icon={FileJson} title="No desired state was composed yet" small>
            The cloud composes one as soon as something is assigned to the Unit, or the Unit comes.
          </Empty>
        )}
      </Card>
    );
  }
  return (
    <Card
      title={`Desired state no. ${desired.number}`}
      actions={<CopyIcon text={JSON.stringify(desired.desired_status, null, 2)} what="the document" />}
    >
      <div style={{ padding: 16 }}>
        <Facts
          of={[
            ["Composed", <Ago key="c" at={desired.composed_at} />],
            ["Sent", <Ago key="s" at={desired.sent_at} never="not yet" />],
            ["Acknowledged", <Ago key="a" at={desired.acknowledged_at} never="not yet" />],
            ["Met", <Ago key="m" at={desired.applied_at} never="not yet" />],
          ]}
        />
      </div>
      <Document value={desired.desired_status} label="The document as it is sent" />
    </Card>
  );
}

const CERTIFICATES: Column<UnitCertificate>[] = [
  { head: "Type", cell: (certificate) => <Named name={certificate.cert_type} /> },
  { head: "Node", cell: (certificate) => certificate.node_id },
  { head: "Serial", cell: (certificate) => <Ident id={certificate.serial} what="serial" /> },
  { head: "Status", cell: (certificate) => <Mark state={certificate.status} /> },
  { head: "Expires", number: true, cell: (certificate) => <Ago at={certificate.valid_till} /> },
];

/** The certificates this cloud issued for the Unit and its Nodes. */
export function Certificates({ id }: { id: string }) {
  const read = useQuery(unitCertificates(id));
  const rows = read.data?.items ?? [];
  return (
    <Card title="Certificates">
      {read.isPending && <Loading />}
      {read.error && (
        <div style={{ padding: 16 }}>
          <Trouble
            error={read.error}
            doing="Certificates could not be read"
            retry={() => void read.refetch()}
          />
        </div>
      )}
      {read.data && rows.length === 0 && (
        <Empty icon={ShieldCheck} title="No certificate was issued" small>
          A Unit gets its certificates when it joins.
        </Empty>
      )}
      {rows.length > 0 && (
        <Table
          label="Certificates"
          columns={CERTIFICATES}
          rows={rows}
          name={(each) => `${each.node_id}/${each.cert_type}/${each.serial}`}
        />
      )}
    </Card>
  );
}
