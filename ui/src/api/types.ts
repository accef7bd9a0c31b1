/** The REST types by their names, from `schema.d.ts`, which `npm run api` writes from the OpenAPI document. */
import type { components } from "./schema";

type Schemas = components["schemas"];

/** One page of a list. */
export interface Page<T> {
  items: T[];
  total: number;
  offset: number;
}

export type Alert = Schemas["Alert"];
export type AuditEntry = Schemas["AuditEntry"];
export type BundleStage = Schemas["BundleStage"];
export type ChangeEvent = Schemas["ChangeEvent"];
export type ChangeTopic = Schemas["ChangeTopic"];
export type ClaimCode = Schemas["ClaimCode"];
export type DeploymentBundle = Schemas["DeploymentBundle"];
export type DesiredState = Schemas["DesiredState"];
export type EnvVar = Schemas["EnvVar"];
export type KeptState = Schemas["KeptState"];
export type ErrorBody = Schemas["ErrorBody"];
export type Explanation = Schemas["Explanation"];
export type InstanceUsage = Schemas["InstanceUsage"];
export type IssuedClaimCode = Schemas["IssuedClaimCode"];
export type InstanceWhy = Schemas["InstanceWhy"];
export type LogKind = Schemas["LogKind"];
export type LogLine = Schemas["LogLine"];
export type LogLines = Schemas["LogLines"];
export type LogRequest = Schemas["LogRequest"];
export type Me = Schemas["Me"];
export type ModelUnit = Schemas["ModelUnit"];
export type Node = Schemas["Node"];
export type NodeUsage = Schemas["NodeUsage"];
export type NodeVerdict = Schemas["NodeVerdict"];
export type Overrides = Schemas["Overrides"];
export type ReportedError = Schemas["ReportedError"];
export type RuleOutcome = Schemas["RuleOutcome"];
export type Service = Schemas["Service"];
export type ServiceUnit = Schemas["ServiceUnit"];
export type ServiceVersion = Schemas["ServiceVersion"];
export type Session = Schemas["Session"];
export type Subject = Schemas["Subject"];
export type SubjectService = Schemas["SubjectService"];
export type SubjectUnit = Schemas["SubjectUnit"];
export type TimetableDay = Schemas["TimetableDay"];
export type TimelineEvent = Schemas["TimelineEvent"];
export type Unit = Schemas["Unit"];
export type UnitCertificate = Schemas["UnitCertificate"];
export type UnitConfigOrder = Schemas["UnitConfigOrder"];
export type UnitConfigVersion = Schemas["UnitConfigVersion"];
export type UnitCounts = Schemas["UnitCounts"];
export type UnitInstance = Schemas["UnitInstance"];
export type UnitItem = Schemas["UnitItem"];
export type UnitModel = Schemas["UnitModel"];
export type UnitMonitoring = Schemas["UnitMonitoring"];
export type UnitSubject = Schemas["UnitSubject"];
export type UnitSubjectService = Schemas["UnitSubjectService"];
export type UnitUpdateSchedules = Schemas["UnitUpdateSchedules"];
export type UnitWhy = Schemas["UnitWhy"];
export type UpdatePhase = Schemas["UpdatePhase"];
export type UpdateSchedule = Schemas["UpdateSchedule"];
export type UpdateSchedules = Schemas["UpdateSchedules"];
export type UsageLimit = Schemas["UsageLimit"];
export type UsagePoint = Schemas["UsagePoint"];
export type WantedNodeState = Schemas["WantedNodeState"];
