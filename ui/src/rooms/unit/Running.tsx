import { Button } from "@mantine/core";
import { Boxes, CircleHelp } from "lucide-react";
import { useState } from "react";
import { Link } from "wouter";
import type { Unit, UnitInstance, UnitSubjectService } from "~/api/types";
import { Mark, Shape } from "~/parts/Mark";
import { Card } from "~/parts/Room";
import { Ago, Chips, Empty } from "~/parts/small";
import { count } from "~/parts/time";
import { instanceState, isCompleted, serviceState, why } from "./phase";
import css from "./unit.module.css";

const FEW = 6;

function Version({ entry }: { entry: UnitSubjectService }) {
  const { installed_version: installed, desired_version: desired } = entry;
  if (installed && desired && installed !== desired) {
    return (
      <span className={css.version}>
        {installed} <span aria-hidden="true">→</span>
        <span className="only-heard">to</span> <b>{desired}</b>
      </span>
    );
  }
  return <span className={css.version}>{desired ?? installed ?? "no version"}</span>;
}

function Instance({ instance, entry }: { instance: UnitInstance; entry: UnitSubjectService }) {
  const state = instanceState(instance);
  return (
    <li className={css.instance} data-run-state={instance.run_state}>
      <span className={css.number}>#{instance.instance_id}</span>
      <Mark state={instance.run_state} tone={state.tone} word={state.word} />
      <span className={css.where}>
        {instance.node_id ? (
          <>
            on <b>{instance.node_id}</b>
          </>
        ) : (
          "not placed"
        )}
        {instance.version && instance.version !== entry.desired_version && (
          <em> version {instance.version}</em>
        )}
      </span>
      <span className={css.since}>
        <Ago at={instance.changed_at} />
      </span>
      {(instance.run_state === "failed" || instance.error) && <p>{why(instance.error)}</p>}
    </li>
  );
}

function Entry({ entry, ask }: { entry: UnitSubjectService; ask: () => void }) {
  const [open, setOpen] = useState(false);
  const { service, subject } = entry;
  const state = serviceState(entry);
  const many = entry.instances.length > FEW;
  const troubled = entry.instances.filter((each) => each.run_state !== "active" && !isCompleted(each));
  const shown = !many || open ? entry.instances : troubled.slice(0, FEW);
  return (
    <li className={css.entry} data-service={service.codename}>
      <div className={css.entryHead}>
        <span className={css.entryName}>
          <Link href={`/services/${service.id}`}>{service.title || service.codename}</Link>
          <Version entry={entry} />
        </span>
        <Mark state={state.word} tone={state.tone} word={state.word} soft />
        <Button
          variant="subtle"
          size="compact-sm"
          leftSection={<CircleHelp size={14} aria-hidden />}
          onClick={ask}
          aria-label={`Why is ${service.title || service.codename} as it is?`}
        >
          Why?
        </Button>
      </div>
      <div className={css.entryMeta}>
        <span>
          through <Link href={`/assignments/${subject.id}`}>{subject.label}</Link>
        </span>
        <span>{count(entry.num_instances, "instance")} desired</span>
        {entry.priority > 0 && <span>priority {entry.priority}</span>}
        {entry.labels.length > 0 && (
          <span className={css.labels}>
            only Nodes with <Chips of={entry.labels} />
          </span>
        )}
      </div>
      {many && (
        <div className={css.many}>
          <span className={css.shapes} aria-hidden="true">
            {entry.instances.map((each) => (
              <Shape key={each.instance_id} tone={instanceState(each).tone} size={9} />
            ))}
          </span>
          <Button variant="subtle" size="compact-xs" aria-expanded={open} onClick={() => setOpen(!open)}>
            {open ? "Show fewer" : `Show all ${entry.instances.length}`}
          </Button>
        </div>
      )}
      {shown.length > 0 && (
        <ul className={css.instances} aria-label={`Instances of ${service.title || service.codename}`}>
          {shown.map((instance) => (
            <Instance key={instance.instance_id} instance={instance} entry={entry} />
          ))}
        </ul>
      )}
    </li>
  );
}

/** The services of a Unit and their instances: what is desired, what runs, where. */
export function Running(properties: {
  unit: Unit;
  services: UnitSubjectService[];
  ask: (service: string) => void;
  assign: () => void;
}) {
  const { unit, services } = properties;
  return (
    <Card
      title="Services and instances"
      note={`${unit.counts.instances_active} of ${count(unit.counts.instances_desired, "instance")} active`}
      actions={
        services.length > 0 && (
          <Button size="compact-sm" variant="default" onClick={properties.assign}>
            Assign services
          </Button>
        )
      }
    >
      {services.length === 0 ? (
        <Empty
          icon={Boxes}
          title="Nothing is assigned to this Unit"
          command={`aos assign <service> --unit ${unit.system_uid}`}
          action={<Button onClick={properties.assign}>Assign services</Button>}
          small
        >
          An assignment says which services run on which Units. The Unit then downloads, verifies and starts
          them.
        </Empty>
      ) : (
        <ul className={css.entries}>
          {services.map((entry) => (
            <Entry
              key={`${entry.subject.id}/${entry.service.id}`}
              entry={entry}
              ask={() => properties.ask(entry.service.id)}
            />
          ))}
        </ul>
      )}
    </Card>
  );
}
