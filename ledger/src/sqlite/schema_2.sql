-- Version 2: how far an hour is metered, and sums by model. This file never changes.
-- What version 1 wrote counts as metered to the end of its hour.

ALTER TABLE spend ADD COLUMN metered_until INTEGER NOT NULL DEFAULT 0;
UPDATE spend SET metered_until = hour_start + 3600000;
DROP INDEX spend_hour;
CREATE INDEX spend_hour ON spend (hour_start, namespace, model, nano_usd);
