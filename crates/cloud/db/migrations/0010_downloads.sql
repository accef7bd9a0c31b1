-- How far the downloads of a Unit's update under way are, as the Unit tells them; gone when it no longer downloads.
CREATE TABLE unit_downloads (
    unit_id TEXT NOT NULL REFERENCES units (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    bytes_here BIGINT NOT NULL,
    bytes_total BIGINT NOT NULL,
    is_here BIGINT NOT NULL,
    hindrance TEXT NOT NULL,
    told_at BIGINT NOT NULL,
    PRIMARY KEY (unit_id, digest)
);
