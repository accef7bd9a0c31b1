-- What people order of a Unit beside its services.

-- What a Node should be: 'provisioned' or 'paused'. No row: nothing was said.
CREATE TABLE node_orders (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (unit_id, node_id)
);

-- The version of the unit configuration that is ordered: for all Units of a model, and for one Unit instead of that.
ALTER TABLE unit_models ADD COLUMN ordered_config TEXT;
UPDATE unit_models SET ordered_config = (SELECT unit_configs.version FROM unit_configs
    WHERE unit_configs.unit_model_id = unit_models.id ORDER BY unit_configs.number DESC LIMIT 1);
ALTER TABLE units ADD COLUMN ordered_config TEXT;
-- The version in force as the Unit reports it; config_version and config_state show what failed, if something did.
ALTER TABLE units ADD COLUMN config_in_force TEXT;
UPDATE units SET config_in_force = config_version WHERE config_state = 'installed';

-- When software and firmware may be changed; JSON, absent: nothing was said.
ALTER TABLE unit_models ADD COLUMN sota_schedule TEXT;
ALTER TABLE unit_models ADD COLUMN fota_schedule TEXT;
ALTER TABLE units ADD COLUMN sota_schedule TEXT;
ALTER TABLE units ADD COLUMN fota_schedule TEXT;

-- A subject that Units report by themselves, by the name they report it with.
ALTER TABLE subjects ADD COLUMN reported_as TEXT;
CREATE UNIQUE INDEX subjects_by_reported ON subjects (tenant_id, reported_as);
-- The subjects that concern a Unit: those it was put into, and those it reports.
CREATE VIEW subjects_of_units AS
    SELECT unit_id, subject_id FROM subject_units
    UNION
    SELECT units.id AS unit_id, subjects.id AS subject_id FROM units
    JOIN unit_subjects ON unit_subjects.unit_id = units.id
    JOIN subjects ON subjects.tenant_id = units.tenant_id AND subjects.reported_as = unit_subjects.subject;

-- May fail by itself without taking the rest of the update back.
ALTER TABLE subject_services ADD COLUMN independent BIGINT;

-- Environment variables set over those of the items. Absent parts of the filter mean any.
CREATE TABLE env_vars (
    id TEXT NOT NULL PRIMARY KEY,
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    item_id TEXT,
    subject_id TEXT,
    instance BIGINT,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_at BIGINT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX env_vars_by_unit ON env_vars (unit_id);

-- What the Unit says of each variable of each instance.
CREATE TABLE env_statuses (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    item_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    instance BIGINT NOT NULL,
    name TEXT NOT NULL,
    error TEXT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (unit_id, item_id, subject_id, instance, name)
);

-- Which set of variables went to the Unit: when it last changed, the message it went out with, when it was taken over.
ALTER TABLE units ADD COLUMN env_changed_at BIGINT;
ALTER TABLE units ADD COLUMN env_txn TEXT;
ALTER TABLE units ADD COLUMN env_sent_at BIGINT;
ALTER TABLE units ADD COLUMN env_acked_at BIGINT;
