-- The last state of each instance that the cloud accepted.
CREATE TABLE instance_states (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    item_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    instance BIGINT NOT NULL,
    state TEXT NOT NULL,
    checksum TEXT NOT NULL,
    size BIGINT NOT NULL,
    kept_at BIGINT NOT NULL,
    PRIMARY KEY (unit_id, item_id, subject_id, instance)
);
