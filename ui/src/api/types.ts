/** The REST types the UI reads and writes: `crates/base/api` as TypeScript. */

type Maybe<T> = T | null | undefined;

export interface Page<T> {
  items: T[];
  total: number;
  offset: number;
}
export interface ErrorBody {
  message: string;
  field?: Maybe<string>;
  hint?: Maybe<string>;
}
export interface ReportedError {
  aos_code: number;
  exit_code: number;
  message: string;
}

export interface Me {
  id: string;
  username: string;
  email: string;
  role: string;
  oem: { id: string; title: string };
  domain: string;
  effective_permissions: string[];
  signed_in_by: string;
}
export interface Session {
  user: Me;
  expires_at: string;
}

export type OnlineStatus = "Offline" | "Connected" | "Online";
export type UpdatePhase =
  | "none"
  | "waiting_for_unit"
  | "downloading"
  | "pending"
  | "installing"
  | "waiting_for_active"
  | "installed"
  | "failed";
export interface UnitModelRef {
  id: string;
  name: string;
  version: string;
}
export interface Unit {
  id: string;
  system_uid: string;
  title: string;
  status: "new" | "provisioned";
  online_status: OnlineStatus;
  last_online_changed_at?: Maybe<string>;
  last_seen_at?: Maybe<string>;
  unit_model?: Maybe<UnitModelRef>;
  installed_unit_config?: Maybe<{ version: string; state: string; error?: Maybe<ReportedError> }>;
  update_phase: UpdatePhase;
  counts: UnitCounts;
  created_at: string;
  updated_at: string;
}
export interface UnitCounts {
  nodes: number;
  nodes_connected: number;
  instances: number;
  instances_active: number;
  instances_failed: number;
  instances_desired: number;
  subjects: number;
}
export interface Node {
  node_id: string;
  node_type: string;
  title: string;
  is_main: boolean;
  is_connected: boolean;
  state: string;
  error?: Maybe<ReportedError>;
  os: string;
  max_dmips: number;
  total_ram: number;
  physical_ram?: Maybe<number>;
  cpus: {
    model_name: string;
    total_num_cores: number;
    total_num_threads: number;
    architecture: string;
    variant?: Maybe<string>;
  }[];
  attrs: Record<string, string>;
  labels: string[];
  partitions: { name: string; types: string[]; total_size: number }[];
  runtimes: { id: string; runtime_type: string; architecture: string; os: string; max_instances: number }[];
  resources: { name: string; shared_count: number }[];
}
export interface ServiceRef {
  id: string;
  codename: string;
  title: string;
}
export interface SubjectRef {
  id: string;
  label: string;
}
export interface UnitItem {
  item_id: string;
  item_type: string;
  service?: Maybe<ServiceRef>;
  version: string;
  state: string;
  error?: Maybe<ReportedError>;
  desired: boolean;
  changed_at: string;
}
export interface UnitInstance {
  instance_id: number;
  version: string;
  run_state: string;
  node_id: string;
  runtime_id: string;
  error?: Maybe<ReportedError>;
  changed_at: string;
}
export interface UnitSubjectService {
  subject: SubjectRef;
  service: ServiceRef;
  desired_version?: Maybe<string>;
  installed_version?: Maybe<string>;
  num_instances: number;
  priority: number;
  labels: string[];
  instances: UnitInstance[];
}
export type Severity = "info" | "warning" | "error";
export interface TimelineEvent {
  id: number;
  at: string;
  kind: string;
  severity: Severity;
  text: string;
  node_id?: Maybe<string>;
  item_id?: Maybe<string>;
  subject_id?: Maybe<string>;
  instance_id?: Maybe<number>;
  version?: Maybe<string>;
}
export interface DesiredState {
  number: number;
  desired_status: unknown;
  composed_at: string;
  sent_at?: Maybe<string>;
  acknowledged_at?: Maybe<string>;
  applied_at?: Maybe<string>;
}
export interface UnitCertificate {
  cert_type: string;
  node_id: string;
  serial: string;
  valid_till: string;
  status: string;
}
export type RuleOutcome = "pass" | "fail" | "waiting" | "not_checked";
export interface ExplainedRule {
  rule: string;
  outcome: RuleOutcome;
  text: string;
  hint?: Maybe<string>;
}
export interface Explanation {
  system_uid: string;
  service: ServiceRef;
  as_desired: boolean;
  summary: string;
  rules: ExplainedRule[];
}

export interface Service {
  id: string;
  codename: string;
  title: string;
  description: string;
  latest_version?: Maybe<string>;
  version_count: number;
  unit_count: number;
  created_at: string;
}
export interface ServiceVersion {
  id: string;
  version: string;
  state: string;
  platforms: string[];
  index_digest: string;
  size: number;
  min_num_instances: number;
  configuration: unknown;
  bundle_id?: Maybe<string>;
  unit_count: number;
  created_at: string;
}
export interface ServiceUnit {
  id: string;
  system_uid: string;
  title: string;
  assigned: boolean;
  versions: string[];
  instances: number;
  instances_active: number;
}

export type BundleState = "uploaded" | "processing" | "done" | "error";
export type BundleStage = "receive" | "verify" | "read" | "convert" | "publish";
export type StageState = "waiting" | "running" | "done" | "failed" | "skipped";
export interface BundleStageReport {
  stage: BundleStage;
  state: StageState;
  message: string;
  hint?: Maybe<string>;
  started_at?: Maybe<string>;
  finished_at?: Maybe<string>;
}
export interface BundleItem {
  item_type: string;
  codename: string;
  title: string;
  version: string;
  service_id?: Maybe<string>;
  platforms: string[];
}
export interface DeploymentBundle {
  id: string;
  state: BundleState;
  build_info: string;
  is_check: boolean;
  file_name: string;
  file_size: number;
  sha256: string;
  signed_by: string;
  created_by: string;
  created_at: string;
  items: BundleItem[];
  stages: BundleStageReport[];
}

export interface Overrides {
  num_instances?: Maybe<number>;
  labels?: Maybe<string[]>;
  priority?: Maybe<number>;
}
export interface SubjectService {
  service: ServiceRef;
  latest_version?: Maybe<string>;
  overrides: Overrides;
}
export interface Subject {
  id: string;
  label: string;
  priority: number;
  is_group: boolean;
  is_protected: boolean;
  created_by: string;
  created_at: string;
  unit_count: number;
  services: SubjectService[];
}
export interface SubjectUnit {
  id: string;
  system_uid: string;
  title: string;
  online_status: OnlineStatus;
}

export interface UnitModel {
  id: string;
  name: string;
  version: string;
  unit_config_version?: Maybe<string>;
  unit_count: number;
  created_at: string;
}
export interface UnitConfigVersion {
  id: string;
  version: string;
  unit_config: unknown;
  created_at: string;
}

export interface ClaimCode {
  id: string;
  title: string;
  unit_model?: Maybe<UnitModelRef>;
  system_uid?: Maybe<string>;
  state: string;
  unit_id?: Maybe<string>;
  created_by: string;
  created_at: string;
  expires_at: string;
  used_at?: Maybe<string>;
}
export interface IssuedClaimCode {
  claim_code: ClaimCode;
  code: string;
  ca_fingerprint: string;
  join_command: string;
}

export type ChangeTopic = "unit" | "bundle" | "service" | "subject" | "unit_model" | "claim_code" | "resync";
export interface ChangeEvent {
  topic: ChangeTopic;
  action: string;
  id?: Maybe<string>;
  at: string;
}
export interface AuditEntry {
  id: number;
  at: string;
  actor: string;
  action: string;
  target: string;
  detail: string;
}
