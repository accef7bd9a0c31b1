import { Button, Drawer, Menu } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Cpu, EllipsisVertical, Package, Trash2 } from "lucide-react";
import { useState } from "react";
import { Link, useLocation } from "wouter";
import { path, remove } from "~/api/client";
import { service as readService, serviceUnits, serviceVersions } from "~/api/queries";
import type { ServiceUnit, ServiceVersion } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Mark } from "~/parts/Mark";
import { Card, Head } from "~/parts/Room";
import { Ago, Chips, Document, Empty, Facts, Ident, Loading, Trouble } from "~/parts/small";
import { type Column, Named, Table } from "~/parts/Table";
import { bytes, count } from "~/parts/time";
import { NewAssignment } from "~/rooms/assignments/NewAssignment";
import { Why } from "~/rooms/unit/Why";

/** One service: its versions, and the Units that have or should have it. */
export default function Service({ id }: { id: string }) {
  const [, go] = useLocation();
  const [deleting, ask] = useDisclosure(false);
  const [assigning, assign] = useDisclosure(false);
  const [shown, show] = useState<ServiceVersion | null>(null);
  const [asked, why] = useState<string | null>(null);
  const read = useQuery(readService(id));
  const versions = useQuery(serviceVersions(id));
  const units = useQuery(serviceUnits(id));
  const service = read.data;
  const newest = versions.data?.items[0];

  if (!service) {
    return (
      <>
        <Head title="Service" page="Service" trail={[["Services", "/services"]]} />
        {read.error ? (
          <Trouble
            error={read.error}
            doing="The service could not be read"
            retry={() => void read.refetch()}
          />
        ) : (
          <Loading />
        )}
      </>
    );
  }
  const name = service.title || service.codename;
  const versionColumns: Column<ServiceVersion>[] = [
    {
      head: "Version",
      cell: (version) => (
        <Named name={version.version} sub={version.id === newest?.id ? "newest" : undefined} />
      ),
    },
    { head: "State", cell: (version) => <Mark state={version.state} /> },
    { head: "Platforms", cell: (version) => <Chips of={version.platforms} /> },
    { head: "Size", number: true, cell: (version) => bytes(version.size) },
    { head: "Instances", number: true, cell: (version) => version.min_num_instances },
    { head: "Installed on", number: true, cell: (version) => count(version.unit_count, "Unit") },
    { head: "Published", number: true, cell: (version) => <Ago at={version.created_at} /> },
    {
      head: "",
      number: true,
      cell: (version) => (
        <Button
          variant="subtle"
          size="compact-sm"
          onClick={() => show(version)}
          aria-label={`Details of ${version.version}`}
        >
          Details
        </Button>
      ),
    },
  ];
  const unitColumns: Column<ServiceUnit>[] = [
    {
      head: "Unit",
      cell: (unit) => (
        <Link href={`/units/${unit.id}`}>
          <Named name={unit.title || unit.system_uid} sub={unit.title ? unit.system_uid : undefined} />
        </Link>
      ),
    },
    { head: "Assigned", cell: (unit) => (unit.assigned ? "yes" : "no longer") },
    { head: "Installed", cell: (unit) => unit.versions.join(", ") || "not yet" },
    {
      head: "Instances",
      cell: (unit) => (
        <Mark
          state="instances"
          tone={unit.instances === 0 ? "idle" : unit.instances_active === unit.instances ? "good" : "busy"}
          word={`${unit.instances_active} of ${unit.instances} active`}
        />
      ),
    },
    {
      head: "",
      number: true,
      cell: (unit) => (
        <Button
          variant="subtle"
          size="compact-sm"
          onClick={() => why(unit.id)}
          aria-label={`Why on ${unit.system_uid}?`}
        >
          Why?
        </Button>
      ),
    },
  ];
  return (
    <>
      <Head
        title={name}
        page={name}
        trail={[["Services", "/services"]]}
        under={
          <>
            <Ident id={service.codename} what="codename" />
            {service.latest_version && <span>newest version {service.latest_version}</span>}
            <span>assigned to {count(service.unit_count, "Unit")}</span>
          </>
        }
      >
        <Button onClick={assign.open}>Assign</Button>
        <Menu position="bottom-end">
          <Menu.Target>
            <Button variant="default" rightSection={<EllipsisVertical size={14} aria-hidden />}>
              Service
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item color="red" leftSection={<Trash2 size={14} aria-hidden />} onClick={ask.open}>
              Delete…
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </Head>
      {service.description && (
        <p style={{ maxWidth: "76ch", marginBottom: 16, color: "var(--text-2)" }}>{service.description}</p>
      )}
      <div style={{ display: "grid", gap: 16 }}>
        <Card title="Versions" note={versions.data && count(versions.data.total, "version")}>
          {versions.isPending && <Loading />}
          <Trouble error={versions.error} doing="Versions could not be read" />
          {versions.data?.items.length === 0 && (
            <Empty icon={Package} title="No version is ready" command="aos bundle push <folder>" small>
              Upload a bundle that holds a version of {service.codename}.
            </Empty>
          )}
          {versions.data && versions.data.items.length > 0 && (
            <Table
              label="Versions"
              columns={versionColumns}
              rows={versions.data.items}
              name={(version) => version.id}
            />
          )}
        </Card>
        <Card title="Units" note="that have it, or should">
          {units.isPending && <Loading />}
          <Trouble error={units.error} doing="Units could not be read" />
          {units.data?.items.length === 0 && (
            <Empty
              icon={Cpu}
              title="It runs on no Unit"
              command={`aos assign ${service.codename} --unit <system id>`}
              action={<Button onClick={assign.open}>Assign</Button>}
              small
            >
              Assign it to Units: the newest version that is ready gets there by itself.
            </Empty>
          )}
          {units.data && units.data.items.length > 0 && (
            <Table label="Units" columns={unitColumns} rows={units.data.items} name={(unit) => unit.id} />
          )}
        </Card>
      </div>
      <Drawer
        opened={shown !== null}
        onClose={() => show(null)}
        size={560}
        title={`${name} ${shown?.version ?? ""}`}
      >
        {shown && (
          <div style={{ display: "grid", gap: 16 }}>
            <Facts
              of={[
                ["Index digest", <Ident key="d" id={shown.index_digest} what="digest" />],
                ["Size", bytes(shown.size)],
                ["Platforms", <Chips key="p" of={shown.platforms} />],
                ["Instances", `${shown.min_num_instances} unless the assignment says otherwise`],
                ["Published", <Ago key="a" at={shown.created_at} />],
                [
                  "Bundle",
                  shown.bundle_id ? (
                    <Link key="b" href={`/bundles/${shown.bundle_id}`}>
                      Its stages
                    </Link>
                  ) : (
                    "not known"
                  ),
                ],
              ]}
            />
            <Document value={shown.configuration} label="Item configuration" />
          </div>
        )}
      </Drawer>
      <Why unit={asked ?? ""} service={asked === null ? null : service.id} close={() => why(null)} />
      {assigning && (
        <NewAssignment
          close={assign.close}
          services={[{ id: service.codename, name, sub: service.codename }]}
        />
      )}
      <Confirm
        opened={deleting}
        close={ask.close}
        title={`Delete ${name}?`}
        button="Delete the service"
        act={() => remove(path`/services/${service.id}/`)}
        done={() => go("/services")}
      >
        All its versions go with it. A service that is assigned cannot be deleted: take it out of its
        assignments first.
      </Confirm>
    </>
  );
}
