-- SPDX-License-Identifier: Apache-2.0
-- What only PostgreSQL needs of the first schema.

-- The store's clock. SQLite's connections bring a function of that name.
CREATE FUNCTION surefoot_now() RETURNS DOUBLE PRECISION LANGUAGE sql VOLATILE
    AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';

-- Rows that are written every second stay on their page, and out of the indexes.
ALTER TABLE environments SET (fillfactor = 50);

-- The same for signs of life.
ALTER TABLE agents SET (fillfactor = 50);

-- Bundles are compressed already.
ALTER TABLE bundle_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
