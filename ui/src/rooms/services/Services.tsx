import { Button, Tabs, TextInput } from "@mantine/core";
import { useDebouncedValue, useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Boxes, PackageOpen, Search, Upload as UploadIcon } from "lucide-react";
import { useState } from "react";
import { useLocation } from "wouter";
import { bundles, services } from "~/api/queries";
import type { DeploymentBundle, Service } from "~/api/types";
import { Mark } from "~/parts/Mark";
import { Card, Head } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { bytes, count, who } from "~/parts/time";
import { Upload } from "./Upload";

const LIMIT = 500;

const SERVICES: Column<Service>[] = [
  {
    head: "Service",
    cell: (service) => <Named name={service.title || service.codename} sub={service.codename} />,
  },
  { head: "Newest version", cell: (service) => service.latest_version ?? "none ready" },
  { head: "Versions", number: true, minor: true, cell: (service) => service.version_count },
  { head: "Assigned to", number: true, cell: (service) => count(service.unit_count, "Unit") },
  { head: "Published", number: true, cell: (service) => <Ago at={service.created_at} /> },
];

const BUNDLES: Column<DeploymentBundle>[] = [
  {
    head: "Bundle",
    cell: (bundle) => (
      <Named
        name={
          bundle.items.map((item) => `${item.codename} ${item.version}`).join(", ") ||
          bundle.file_name ||
          "bundle"
        }
        sub={`${bundle.file_name} · ${bytes(bundle.file_size)}`}
      />
    ),
  },
  {
    head: "State",
    cell: (bundle) => <Mark state={bundle.state} word={bundle.state === "error" ? "Refused" : undefined} />,
  },
  { head: "Signed by", cell: (bundle) => bundle.signed_by || "—", bare: (bundle) => bundle.signed_by === "" },
  { head: "Uploaded by", cell: (bundle) => who(bundle.created_by) },
  { head: "Uploaded", number: true, cell: (bundle) => <Ago at={bundle.created_at} /> },
];

function ServiceList({ upload }: { upload: () => void }) {
  const [text, setText] = useState("");
  const [search] = useDebouncedValue(text.trim(), 160);
  const read = useQuery(services({ search, limit: LIMIT }));
  const rows = read.data?.items ?? [];
  const none = read.data && rows.length === 0;
  return (
    <Card
      title="Services"
      note={read.data && count(read.data.total, "service")}
      actions={
        <TextInput
          type="search"
          size="xs"
          aria-label="Find services by name"
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
          <Trouble error={read.error} doing="Services could not be read" retry={() => void read.refetch()} />
        </div>
      )}
      {none &&
        (search === "" ? (
          <Empty
            icon={Boxes}
            title="No service has been published"
            command="aos bundle init hello && aos bundle push hello"
            action={<Button onClick={upload}>Upload a signed bundle</Button>}
          >
            A service comes in a deployment bundle: a folder with its content and a config.yaml, signed with
            your user certificate.
          </Empty>
        ) : (
          <Empty icon={Search} title={`No service is called “${search}”`} small>
            Search by title or codename.
          </Empty>
        ))}
      {rows.length > 0 && (
        <Table
          label="Services"
          columns={SERVICES}
          rows={rows}
          name={(service) => service.id}
          to={(service) => `/services/${service.id}`}
          mark={(service) => ({ "data-service": service.codename })}
        />
      )}
    </Card>
  );
}

function BundleList({ upload }: { upload: () => void }) {
  const read = useQuery(bundles({ limit: 100 }));
  const rows = read.data?.items ?? [];
  return (
    <Card title="Deployment bundles" note="newest first">
      {read.isPending && <Loading />}
      {read.error && (
        <div style={{ padding: 16 }}>
          <Trouble error={read.error} doing="Bundles could not be read" retry={() => void read.refetch()} />
        </div>
      )}
      {read.data && rows.length === 0 && (
        <Empty
          icon={PackageOpen}
          title="No bundle has been uploaded"
          command="aos bundle push <folder>"
          action={<Button onClick={upload}>Upload a signed bundle</Button>}
        >
          A bundle is verified, converted and published in stages; here is what became of each.
        </Empty>
      )}
      {rows.length > 0 && (
        <Table
          label="Deployment bundles"
          columns={BUNDLES}
          rows={rows}
          name={(bundle) => bundle.id}
          to={(bundle) => `/bundles/${bundle.id}`}
        />
      )}
    </Card>
  );
}

/** Services that can be assigned, and the bundles that brought them. */
export default function Services({ part }: { part: "services" | "bundles" }) {
  const [, go] = useLocation();
  const [uploading, upload] = useDisclosure(false);
  return (
    <>
      <Head title="Services" page={part === "services" ? "Services" : "Bundles"}>
        <Button leftSection={<UploadIcon size={14} aria-hidden />} onClick={upload.open}>
          Upload a bundle
        </Button>
      </Head>
      <Tabs value={part} onChange={(to) => go(`/${to}`)} mb="md">
        <Tabs.List>
          <Tabs.Tab value="services">Services</Tabs.Tab>
          <Tabs.Tab value="bundles">Bundles</Tabs.Tab>
        </Tabs.List>
      </Tabs>
      {part === "services" ? <ServiceList upload={upload.open} /> : <BundleList upload={upload.open} />}
      {uploading && <Upload close={upload.close} />}
    </>
  );
}
