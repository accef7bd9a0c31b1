import { useQuery } from "@tanstack/react-query";
import { Save } from "lucide-react";
import { unitStates } from "~/api/queries";
import type { KeptState } from "~/api/types";
import { Card } from "~/parts/Room";
import { Ago, Empty, Loading, Trouble } from "~/parts/small";
import { count } from "~/parts/time";
import css from "./unit.module.css";

function Kept({ kept }: { kept: KeptState }) {
  const name = kept.service.title || kept.service.codename;
  return (
    <li className={css.instance} data-state-of={kept.service.codename}>
      <span className={css.number}>#{kept.instance_id}</span>
      <span className={css.where}>
        <b>{name}</b> for {kept.subject.label}
      </span>
      <span title={`SHA3-224 ${kept.checksum}`}>{count(kept.size, "byte")}</span>
      <span className={css.since}>
        <Ago at={kept.kept_at} />
      </span>
    </li>
  );
}

/** The states of a Unit's instances that the cloud has accepted and would give back. Their content is not shown. */
export function States({ id, system }: { id: string; system: string }) {
  const read = useQuery(unitStates(id));
  const states = read.data?.items ?? [];
  return (
    <Card title="States kept in the cloud" note={read.data && count(read.data.total, "state")}>
      {read.error && (
        <Trouble error={read.error} doing="The states could not be read" retry={() => void read.refetch()} />
      )}
      {read.isPending && <Loading lines={2} />}
      {read.data && states.length === 0 && (
        <Empty icon={Save} title="No instance has told a state" command={`aos unit show ${system}`} small>
          What an instance writes into /state.dat is kept here and given back when its Node is lost. A state
          that is not accepted is in the timeline, with the reason.
        </Empty>
      )}
      {states.length > 0 && (
        <ul className={css.instances} aria-label="States kept in the cloud">
          {states.map((kept) => (
            <Kept key={`${kept.service.id}/${kept.subject.id}/${kept.instance_id}`} kept={kept} />
          ))}
        </ul>
      )}
    </Card>
  );
}
