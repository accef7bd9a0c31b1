-- Times are microseconds since 1970 in UTC, truth values 0 or 1, ids text. The same text suits SQLite and PostgreSQL.

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    username TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    idle_until BIGINT NOT NULL,
    ends_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (idle_until);

CREATE TABLE user_certificates (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    serial TEXT NOT NULL,
    chain TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE owner_tokens (
    token_hash TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE TABLE unit_models (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (tenant_id, name, version)
);

CREATE TABLE unit_configs (
    id TEXT NOT NULL PRIMARY KEY,
    unit_model_id TEXT NOT NULL REFERENCES unit_models (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    version TEXT NOT NULL,
    document TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (unit_model_id, number)
);

CREATE TABLE units (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    system_uid TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    status TEXT NOT NULL,
    unit_model_id TEXT REFERENCES unit_models (id),
    online_status TEXT NOT NULL,
    online_changed_at BIGINT,
    last_seen_at BIGINT,
    config_version TEXT,
    config_state TEXT,
    config_error TEXT,
    phase TEXT NOT NULL,
    counts TEXT NOT NULL,
    online_key TEXT,
    secure_data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX units_by_tenant ON units (tenant_id, system_uid);

CREATE TABLE unit_certificates (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    cert_type TEXT NOT NULL,
    serial TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX unit_certificates_by_unit ON unit_certificates (unit_id);

CREATE TABLE claim_codes (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    code_hash TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    unit_model_id TEXT REFERENCES unit_models (id) ON DELETE SET NULL,
    system_uid TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    unit_id TEXT REFERENCES units (id) ON DELETE SET NULL
);

CREATE TABLE unit_nodes (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    connected BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (unit_id, node_id)
);

CREATE TABLE unit_items (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    item_type TEXT NOT NULL,
    item_id TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (unit_id, item_type, item_id, version)
);
CREATE INDEX unit_items_by_item ON unit_items (item_id);

CREATE TABLE unit_instances (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    item_type TEXT NOT NULL,
    item_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    instance BIGINT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    node_id TEXT NOT NULL,
    runtime_id TEXT NOT NULL,
    preinstalled BIGINT NOT NULL,
    state_checksum TEXT,
    error TEXT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (unit_id, item_type, item_id, subject_id, instance)
);
CREATE INDEX unit_instances_by_item ON unit_instances (item_id);

CREATE TABLE unit_subjects (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    subject TEXT NOT NULL,
    PRIMARY KEY (unit_id, subject)
);

CREATE TABLE timeline (
    id BIGINT NOT NULL PRIMARY KEY,
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    body TEXT NOT NULL,
    node_id TEXT,
    item_id TEXT,
    subject_id TEXT,
    instance BIGINT,
    version TEXT
);
CREATE INDEX timeline_by_unit ON timeline (unit_id, id);

CREATE TABLE services (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    codename TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (tenant_id, codename)
);

CREATE TABLE bundles (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    state TEXT NOT NULL,
    build_info TEXT NOT NULL,
    is_check BIGINT NOT NULL,
    file_name TEXT NOT NULL,
    file_size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    signed_by TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    items TEXT NOT NULL,
    stages TEXT NOT NULL
);
CREATE INDEX bundles_by_time ON bundles (tenant_id, created_at);

CREATE TABLE service_versions (
    id TEXT NOT NULL PRIMARY KEY,
    service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    index_digest TEXT NOT NULL,
    configuration TEXT NOT NULL,
    platforms TEXT NOT NULL,
    labels TEXT NOT NULL,
    priority BIGINT NOT NULL,
    min_num_instances BIGINT NOT NULL,
    size BIGINT NOT NULL,
    bundle_id TEXT REFERENCES bundles (id) ON DELETE SET NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (service_id, version)
);

CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    sha3_256 TEXT NOT NULL,
    signature TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE version_blobs (
    version_id TEXT NOT NULL REFERENCES service_versions (id) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (version_id, digest)
);
CREATE INDEX version_blobs_by_digest ON version_blobs (digest);

CREATE TABLE subjects (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    label TEXT NOT NULL,
    priority BIGINT NOT NULL,
    is_group BIGINT NOT NULL,
    is_protected BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (tenant_id, label)
);

CREATE TABLE subject_units (
    subject_id TEXT NOT NULL REFERENCES subjects (id) ON DELETE CASCADE,
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (subject_id, unit_id)
);
CREATE INDEX subject_units_by_unit ON subject_units (unit_id);

CREATE TABLE subject_services (
    subject_id TEXT NOT NULL REFERENCES subjects (id) ON DELETE CASCADE,
    service_id TEXT NOT NULL REFERENCES services (id),
    num_instances BIGINT,
    labels TEXT,
    priority BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (subject_id, service_id)
);
CREATE INDEX subject_services_by_service ON subject_services (service_id);

CREATE TABLE desired_states (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    document TEXT NOT NULL,
    content TEXT NOT NULL,
    txn TEXT,
    composed_at BIGINT NOT NULL,
    sent_at BIGINT,
    acked_at BIGINT,
    applied_at BIGINT,
    PRIMARY KEY (unit_id, number)
);

CREATE TABLE outbox (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    txn TEXT NOT NULL,
    priority BIGINT NOT NULL,
    topic TEXT,
    payload TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (unit_id, seq)
);

CREATE TABLE seen_txns (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    txn TEXT NOT NULL,
    PRIMARY KEY (unit_id, seq)
);

CREATE TABLE audit (
    id BIGINT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant_id, id);
