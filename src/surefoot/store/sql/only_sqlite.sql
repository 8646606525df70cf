-- SPDX-License-Identifier: Apache-2.0
-- What SQLite alone says in its own way.

-- name: lock_environment(name)^
-- An environment's row and the clock. The transaction has the only right to write since BEGIN IMMEDIATE.
SELECT next_number, current_version, previous_version, locked_by, holder, token, frozen, surefoot_now()
FROM environments WHERE name = :name;

-- name: last_change()$
-- A number that grows with each append to any journal: rows of a journal are never deleted.
SELECT COALESCE(MAX(rowid), 0) FROM events;
