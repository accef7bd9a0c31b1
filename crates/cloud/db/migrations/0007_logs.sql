-- Requests for logs of Units, what each Node said, and what came. Kept for a while after they are over.
CREATE TABLE log_requests (
    id TEXT NOT NULL PRIMARY KEY,
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    log_type TEXT NOT NULL,
    item_id TEXT,
    subject_id TEXT,
    instance BIGINT,
    date_from BIGINT,
    date_till BIGINT,
    -- Lines come as they are written, until then.
    follow_until BIGINT,
    -- The end of that was moved, and the Unit was not told yet.
    stopping BIGINT NOT NULL DEFAULT 0,
    state TEXT NOT NULL,
    message TEXT,
    bytes BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    sent_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX log_requests_by_unit ON log_requests (unit_id, created_at);

CREATE TABLE log_nodes (
    request_id TEXT NOT NULL REFERENCES log_requests (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    state TEXT NOT NULL,
    parts_count BIGINT NOT NULL,
    message TEXT,
    PRIMARY KEY (request_id, node_id)
);

-- Each content is a gzip stream of its own; seq tells the order in which they came.
CREATE TABLE log_parts (
    seq BIGINT NOT NULL PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES log_requests (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    part BIGINT NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (request_id, node_id, part)
);
