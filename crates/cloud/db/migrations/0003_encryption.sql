-- Blobs that are delivered encrypted, and for whom.
ALTER TABLE unit_models ADD COLUMN encrypt_blobs BIGINT NOT NULL DEFAULT 0;
-- Absent: as the unit model says.
ALTER TABLE units ADD COLUMN encrypt_blobs BIGINT;
-- SubjectPublicKeyInfo in hex; absent for certificates from before.
ALTER TABLE unit_certificates ADD COLUMN public_key TEXT;

-- The encrypted form of a blob: itself a file of the blob folder. Its key is made once and wrapped for each Unit.
CREATE TABLE encrypted_blobs (
    digest TEXT NOT NULL PRIMARY KEY REFERENCES blobs (digest) ON DELETE CASCADE,
    file_digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha3_256 TEXT NOT NULL,
    block_key TEXT NOT NULL,
    block_iv TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
