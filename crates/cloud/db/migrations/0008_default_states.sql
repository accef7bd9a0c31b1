-- The state that instances of a version begin with; none for most.
ALTER TABLE service_versions ADD COLUMN default_state TEXT;
