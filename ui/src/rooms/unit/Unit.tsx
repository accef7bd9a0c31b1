import { Button, Menu, Tabs } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { EllipsisVertical, Pencil, Trash2 } from "lucide-react";
import { useState } from "react";
import { useLocation } from "wouter";
import { path, remove } from "~/api/client";
import {
  alerts,
  desiredState,
  unit as readUnit,
  unitItems,
  unitNodes,
  unitServices,
  unitWhy,
} from "~/api/queries";
import type { Unit as UnitType } from "~/api/types";
import { Confirm } from "~/parts/Confirm";
import { Mark } from "~/parts/Mark";
import { Card, Head } from "~/parts/Room";
import { Ago, Command, Empty, Ident, Loading, Trouble } from "~/parts/small";
import { count } from "~/parts/time";
import { AlertList } from "~/rooms/alerts/AlertList";
import { NewAssignment } from "~/rooms/assignments/NewAssignment";
import { Certificates, Desired, Items } from "./Documents";
import { EditUnit } from "./EditUnit";
import { Logs } from "./Logs";
import { Monitoring } from "./Monitoring";
import { Nodes } from "./Nodes";
import { Running } from "./Running";
import { Settings } from "./Settings";
import { States } from "./States";
import { Timeline } from "./Timeline";
import { Update } from "./Update";
import css from "./unit.module.css";
import { Why } from "./Why";

const PARTS: [string, string][] = [
  ["overview", "Overview"],
  ["monitoring", "Monitoring"],
  ["alerts", "Alerts"],
  ["timeline", "Timeline"],
  ["logs", "Logs"],
  ["items", "Items"],
  ["settings", "Settings"],
  ["desired", "Desired state"],
  ["certificates", "Certificates"],
];

function Heading({ unit }: { unit: UnitType }) {
  const [editing, edit] = useDisclosure(false);
  const [deleting, ask] = useDisclosure(false);
  const [, go] = useLocation();
  const name = unit.title || unit.system_uid;
  return (
    <Head
      title={name}
      page={name}
      trail={[["Units", "/units"]]}
      under={
        <>
          {unit.status === "new" ? <Mark state="new" /> : <Mark state={unit.online_status} />}
          {unit.status !== "new" && (
            <span>
              {unit.online_status === "Offline" ? (
                <>
                  last heard <Ago at={unit.last_seen_at} />
                </>
              ) : (
                <>
                  since <Ago at={unit.last_online_changed_at} />
                </>
              )}
            </span>
          )}
          <Ident id={unit.system_uid} what="system id" />
          {unit.unit_model && (
            <span>
              {unit.unit_model.name} {unit.unit_model.version}
              {unit.installed_unit_config && ` · configuration ${unit.installed_unit_config.version || "—"}`}
              {unit.wanted_unit_config &&
                unit.wanted_unit_config !== unit.installed_unit_config?.version &&
                `, wanted ${unit.wanted_unit_config}`}
            </span>
          )}
        </>
      }
    >
      <Menu position="bottom-end">
        <Menu.Target>
          <Button variant="default" rightSection={<EllipsisVertical size={14} aria-hidden />}>
            Unit
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item leftSection={<Pencil size={14} aria-hidden />} onClick={edit.open}>
            Name, model, delivery…
          </Menu.Item>
          <Menu.Item color="red" leftSection={<Trash2 size={14} aria-hidden />} onClick={ask.open}>
            Delete…
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <EditUnit unit={unit} opened={editing} close={edit.close} />
      <Confirm
        opened={deleting}
        close={ask.close}
        title={`Delete ${name}?`}
        button="Delete the Unit"
        act={() => remove(path`/units/${unit.id}/`)}
        done={() => go("/units")}
      >
        The cloud forgets this Unit, its timeline and its assignments, and no longer accepts its certificates.
        What runs on the Unit goes on running. To come back it has to join again with a new claim code.
      </Confirm>
    </Head>
  );
}

/** One Unit: how it is, what runs on it, what happened. */
export default function Unit({ id, part }: { id: string; part: string }) {
  const [, go] = useLocation();
  const [asked, ask] = useState<string | null>(null);
  const [assigning, assign] = useDisclosure(false);
  const unit = useQuery(readUnit(id));
  const nodes = useQuery(unitNodes(id));
  const items = useQuery(unitItems(id));
  const services = useQuery(unitServices(id));
  const desired = useQuery(desiredState(id));
  const waits = useQuery(unitWhy(id));
  const on = useQuery(alerts(id, { state: "active", limit: 1 })).data?.total ?? 0;

  if (!unit.data) {
    return (
      <>
        <Head title="Unit" page="Unit" trail={[["Units", "/units"]]} />
        {unit.error ? (
          <Trouble error={unit.error} doing="The Unit could not be read" retry={() => void unit.refetch()} />
        ) : (
          <Loading />
        )}
      </>
    );
  }
  const running = services.data?.items ?? [];
  const failed = nodes.error ?? items.error ?? services.error ?? desired.error;
  return (
    <div data-room="unit" data-phase={unit.data.update_phase}>
      <Heading unit={unit.data} />
      <Tabs
        value={part}
        onChange={(to) => go(to === "overview" ? `/units/${id}` : `/units/${id}/${to}`)}
        keepMounted={false}
        classNames={{ list: css.tabList, tab: css.tab }}
      >
        <Tabs.List>
          {PARTS.map(([value, name]) => (
            <Tabs.Tab key={value} value={value}>
              {name}
              {value === "alerts" && on > 0 && (
                <span className={css.on}>{count(on, "goes on", "go on")}</span>
              )}
            </Tabs.Tab>
          ))}
        </Tabs.List>
      </Tabs>
      {failed && <Trouble error={failed} doing="A part of this page could not be read" />}
      {part === "overview" && (
        <div className={css.columns}>
          <div className={css.column}>
            {unit.data.status === "new" ? (
              <Card>
                <Empty title="This Unit has not joined yet" small>
                  Make a claim code for it under Claim codes and type the command shown there on its main
                  Node.
                </Empty>
              </Card>
            ) : (
              <Update
                unit={unit.data}
                desired={desired.data ?? null}
                items={items.data?.items ?? []}
                services={running}
                told={waits.data?.update ?? []}
              />
            )}
            {services.isPending ? (
              <Card title="Services and instances">
                <Loading />
              </Card>
            ) : (
              <Running unit={unit.data} services={running} ask={ask} assign={assign.open} />
            )}
            {nodes.isPending ? (
              <Card title="Nodes">
                <Loading />
              </Card>
            ) : (
              <Nodes unit={unit.data} nodes={nodes.data?.items ?? []} services={running} />
            )}
            {unit.data.status !== "new" && <States id={id} system={unit.data.system_uid} />}
          </div>
          <div className={css.column}>
            <Timeline id={id} brief />
          </div>
        </div>
      )}
      {part === "monitoring" && <Monitoring id={id} />}
      {part === "alerts" && <AlertList unit={id} />}
      {part === "timeline" && <Timeline id={id} />}
      {part === "logs" && <Logs unit={unit.data} nodes={nodes.data?.items ?? []} services={running} />}
      {part === "items" && <Items items={items.data?.items} />}
      {part === "settings" && <Settings unit={unit.data} />}
      {part === "desired" && <Desired desired={desired.data} pending={desired.isPending} />}
      {part === "certificates" && <Certificates id={id} />}
      {!PARTS.some(([value]) => value === part) && <Command text={`aos unit show ${unit.data.system_uid}`} />}
      <Why unit={id} service={asked} close={() => ask(null)} />
      {assigning && (
        <NewAssignment
          close={assign.close}
          label={`unit ${unit.data.system_uid}`}
          units={[
            {
              id: unit.data.system_uid,
              name: unit.data.title || unit.data.system_uid,
              sub: unit.data.system_uid,
            },
          ]}
        />
      )}
    </div>
  );
}
