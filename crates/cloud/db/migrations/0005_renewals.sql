-- A certificate counts as the Unit's when the Unit has said that it is installed, or has shown it.
ALTER TABLE unit_certificates ADD COLUMN installed_at BIGINT;
-- SHA-256 of its public key in hex.
ALTER TABLE unit_certificates ADD COLUMN key_hash TEXT;
UPDATE unit_certificates SET installed_at = created_at;

-- Certificates that are to be renewed, until they are.
CREATE TABLE certificate_renewals (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    cert_type TEXT NOT NULL,
    ordered_by TEXT NOT NULL,
    ordered_at BIGINT NOT NULL,
    sent_at BIGINT,
    issued_at BIGINT,
    error TEXT,
    PRIMARY KEY (unit_id, node_id, cert_type)
);
