import { services, units } from "~/api/queries";
import type { Service, Unit } from "~/api/types";
import { type Choice, Picker } from "~/parts/Picker";

interface Picking {
  picked: Choice[];
  pick: (picked: Choice[]) => void;
  hidden?: Set<string>;
}

/** Picks Units; a choice's id is the system id. */
export function UnitPicker(properties: Picking) {
  return (
    <Picker<Unit>
      label="Units"
      placeholder="Search by name or system id"
      nothing="No Unit has joined yet. Make a claim code first."
      read={(search) => units({ search, limit: 50 })}
      choice={(unit) => ({
        id: unit.system_uid,
        name: unit.title || unit.system_uid,
        sub: [unit.title ? unit.system_uid : "", unit.online_status, unit.unit_model?.name ?? ""]
          .filter(Boolean)
          .join(" · "),
      })}
      {...properties}
    />
  );
}

/** Picks services; a choice's id is the codename. */
export function ServicePicker(properties: Picking) {
  return (
    <Picker<Service>
      label="Services"
      placeholder="Search by title or codename"
      nothing="No service has been published yet. Upload a bundle first."
      read={(search) => services({ search, limit: 50 })}
      choice={(service) => ({
        id: service.codename,
        name: service.title || service.codename,
        sub: `${service.codename} · ${service.latest_version ?? "no version ready"}`,
      })}
      {...properties}
    />
  );
}
