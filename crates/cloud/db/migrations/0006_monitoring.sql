-- What Nodes and instances of Units use. Of a Node item_id and subject_id are empty.
CREATE TABLE usage_points (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    node_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    instance BIGINT NOT NULL,
    cpu BIGINT NOT NULL,
    ram BIGINT NOT NULL,
    download BIGINT,
    upload BIGINT,
    partitions TEXT NOT NULL,
    PRIMARY KEY (unit_id, at, node_id, item_id, subject_id, instance)
);

-- An alert that goes on, or that is told again, is one row. Of what it is not about node_id, item_id and subject_id are
-- empty and instance is -1. is_quota says that it has an end: it is active until ended_at is set.
CREATE TABLE alerts (
    id BIGINT NOT NULL PRIMARY KEY,
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    severity TEXT NOT NULL,
    is_quota BIGINT NOT NULL,
    began_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    ended_at BIGINT,
    told BIGINT NOT NULL,
    node_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    instance BIGINT NOT NULL,
    parameter TEXT NOT NULL,
    quantity BIGINT,
    body TEXT NOT NULL
);
CREATE INDEX alerts_by_unit ON alerts (unit_id, last_at);
