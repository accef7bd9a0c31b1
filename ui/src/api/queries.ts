import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { get, path, Refusal } from "./client";
import type * as T from "./types";

// One place that says which query reads what. Keys begin with the kind of thing, then its id: `events.ts` relies on it.

const PAGE = 100;

export const me = () =>
  queryOptions({
    queryKey: ["me"],
    queryFn: async ({ signal }): Promise<T.Me | null> => {
      try {
        return await get<T.Me>("/users/me/", undefined, signal);
      } catch (error) {
        if (error instanceof Refusal && error.status === 401) return null;
        throw error;
      }
    },
    staleTime: 60_000,
  });

/** What a list is narrowed to. */
export interface Listed {
  search?: string;
  limit?: number;
  offset?: number;
}

function list<Item>(kind: string, at: string, listed: Listed & Record<string, string | number | undefined>) {
  return queryOptions({
    queryKey: [kind, "list", listed],
    queryFn: ({ signal }) => get<T.Page<Item>>(at, { limit: PAGE, ...listed }, signal),
    placeholderData: keepPreviousData,
  });
}

export const units = (listed: Listed & { online_status?: string; status?: string } = {}) =>
  list<T.Unit>("unit", "/units/", { ...listed });
export const services = (listed: Listed = {}) => list<T.Service>("service", "/services/", { ...listed });
export const subjects = (listed: Listed = {}) => list<T.Subject>("subject", "/subjects/", { ...listed });
export const unitModels = (listed: Listed = {}) =>
  list<T.UnitModel>("unit_model", "/unit-models/", { ...listed });
export const claimCodes = (listed: Listed = {}) =>
  list<T.ClaimCode>("claim_code", "/claim-codes/", { ...listed });
export const bundles = (listed: Listed = {}) =>
  list<T.DeploymentBundle>("bundle", "/deployment-bundles/", { ...listed });
export const audit = (listed: Listed = {}) => list<T.AuditEntry>("audit", "/audit/", { ...listed });

function one<Answer>(kind: string, id: string, part: string, at: string, query?: Record<string, string>) {
  return queryOptions({
    queryKey: [kind, id, part, query ?? {}],
    queryFn: ({ signal }) => get<Answer>(at, query, signal),
  });
}

export const unit = (id: string) => one<T.Unit>("unit", id, "self", path`/units/${id}/`);
export const unitNodes = (id: string) => one<T.Page<T.Node>>("unit", id, "nodes", path`/units/${id}/nodes/`);
export const unitItems = (id: string) =>
  one<T.Page<T.UnitItem>>("unit", id, "items", path`/units/${id}/items/`);
export const unitServices = (id: string) =>
  one<T.Page<T.UnitSubjectService>>("unit", id, "services", path`/units/${id}/subjects-services/`);
export const unitStates = (id: string) =>
  one<T.Page<T.KeptState>>("unit", id, "states", path`/units/${id}/states/`);
export const unitCertificates = (id: string) =>
  one<T.Page<T.UnitCertificate>>("unit", id, "certificates", path`/units/${id}/certificates/`);
/** What a Unit used in the last minutes. Read again each half a minute too: the span moves on without an event. */
export const monitoring = (id: string, minutes: number) =>
  queryOptions({
    queryKey: ["monitoring", id, { minutes }],
    queryFn: ({ signal }) =>
      get<T.UnitMonitoring>(
        path`/units/${id}/monitoring/`,
        { datetime_from: new Date(Date.now() - minutes * 60_000).toISOString(), points: 400 },
        signal,
      ),
    placeholderData: keepPreviousData,
    refetchInterval: 30_000,
  });
/** Alerts of a Unit, or of all. */
export const alerts = (
  unit: string | undefined,
  listed: Listed & { state?: string | undefined; tag?: string | undefined },
) =>
  queryOptions({
    queryKey: ["alert", unit ?? "list", listed],
    queryFn: ({ signal }) =>
      get<T.Page<T.Alert>>(
        unit === undefined ? "/alerts/" : path`/units/${unit}/alerts/`,
        { limit: PAGE, ...listed },
        signal,
      ),
    placeholderData: keepPreviousData,
  });
export const explain = (id: string, service: string) =>
  one<T.Explanation>("unit", id, "explain", path`/units/${id}/explain/`, { service });
export const unitWhy = (id: string) => one<T.UnitWhy>("unit", id, "why", path`/units/${id}/why/`);
export const unitConfigOrder = (id: string) =>
  one<T.UnitConfigOrder>("unit", id, "config", path`/units/${id}/unit-config/`);
export const unitSchedules = (id: string) =>
  one<T.UnitUpdateSchedules>("unit", id, "schedule", path`/units/${id}/update-schedule/`);
/** The requests for logs of a Unit; lines of each are read as they come by whoever shows them. */
export const unitLogs = (id: string) =>
  one<T.Page<T.LogRequest>>("log", "list", id, path`/units/${id}/logs/`);
export const unitSubjects = (id: string) =>
  one<T.Page<T.UnitSubject>>("unit", id, "subjects", path`/units/${id}/subjects/`);
/** The variables set on a Unit; with `reveal` their values too, which the audit notes. */
export const envVars = (id: string, reveal = false) =>
  one<T.Page<T.EnvVar>>(
    "unit",
    id,
    "env-vars",
    path`/units/${id}/env-vars/`,
    reveal ? { reveal: "true" } : undefined,
  );

/** The desired state last composed, or null while there is none. */
export const desiredState = (id: string) =>
  queryOptions({
    queryKey: ["unit", id, "desired", {}],
    queryFn: async ({ signal }): Promise<T.DesiredState | null> => {
      try {
        return await get<T.DesiredState>(path`/units/${id}/desired-state/`, undefined, signal);
      } catch (error) {
        if (error instanceof Refusal && error.status === 404) return null;
        throw error;
      }
    },
  });

export const timeline = (id: string, size = 50) =>
  infiniteQueryOptions({
    queryKey: ["unit", id, "timeline", { size }],
    queryFn: ({ pageParam, signal }) =>
      get<T.Page<T.TimelineEvent>>(path`/units/${id}/timeline/`, { limit: size, offset: pageParam }, signal),
    initialPageParam: 0,
    getNextPageParam: (last) => {
      const next = last.offset + last.items.length;
      return last.items.length > 0 && next < last.total ? next : undefined;
    },
  });

export const service = (id: string) => one<T.Service>("service", id, "self", path`/services/${id}/`);
export const serviceVersions = (id: string) =>
  one<T.Page<T.ServiceVersion>>("service", id, "versions", path`/services/${id}/service-versions/`);
export const serviceUnits = (id: string) =>
  one<T.Page<T.ServiceUnit>>("service", id, "units", path`/services/${id}/units/`);

/** A bundle; read again every second while it is under way, should an event be missed. */
export const bundle = (id: string) =>
  queryOptions({
    queryKey: ["bundle", id, "self", {}],
    queryFn: ({ signal }) => get<T.DeploymentBundle>(path`/deployment-bundles/${id}/`, undefined, signal),
    refetchInterval: (query) => {
      const state = query.state.data?.state;
      return state === "done" || state === "error" ? false : 1000;
    },
  });

export const subject = (id: string) => one<T.Subject>("subject", id, "self", path`/subjects/${id}/`);
export const subjectUnits = (id: string) =>
  one<T.Page<T.SubjectUnit>>("subject", id, "units", path`/subjects/${id}/units/`, { limit: "1000" });

export const unitModel = (id: string) =>
  one<T.UnitModel>("unit_model", id, "self", path`/unit-models/${id}/`);
export const unitConfigs = (id: string) =>
  one<T.Page<T.UnitConfigVersion>>("unit_model", id, "configs", path`/unit-models/${id}/unit-configs/`);
export const modelSchedule = (id: string) =>
  one<T.UpdateSchedules>("unit_model", id, "schedule", path`/unit-models/${id}/update-schedule/`);
export const modelUnits = (id: string) =>
  one<T.Page<T.ModelUnit>>("unit_model", id, "units", path`/unit-models/${id}/units/`, { limit: "1000" });
