-- What a Unit says of its update as a whole, and of instances without a place or not where they might be, as JSON. Absent:
-- it has said nothing.
ALTER TABLE units ADD COLUMN update_told TEXT;
ALTER TABLE units ADD COLUMN placements_told TEXT;
