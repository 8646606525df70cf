-- SPDX-License-Identifier: Apache-2.0
-- Environments and their leases.

-- name: clock()$
-- The store's clock.
SELECT surefoot_now();

-- name: identity()$
-- The store's own name.
SELECT store FROM schema_version;

-- name: schema()$
-- Which schema a program has brought the store to.
SELECT version FROM schema_version;

-- name: add_environment(name)!
-- An environment's row, unless it is there.
INSERT INTO environments (name) VALUES (:name) ON CONFLICT (name) DO NOTHING;

-- name: take_number(name)!
-- Count one more deployment.
UPDATE environments SET next_number = next_number + 1 WHERE name = :name;

-- name: change_environment(name, current_version, previous_version, locked_by)!
-- What the end of a deployment makes of its environment.
UPDATE environments
SET current_version = :current_version, previous_version = :previous_version, locked_by = :locked_by
WHERE name = :name;

-- name: grant_lease(name, deployment, agent, incarnation, ttl, holder, token, renewals, at)!
-- Take the lease, if it is still what the claimer saw, and if no other deployment locks the environment.
UPDATE environments
SET holder = :agent, incarnation = :incarnation, ttl = :ttl, renewed_at = :at,
    token = token + 1, renewals = renewals + 1,
    entered = (SELECT COUNT(*) FROM presence AS p WHERE p.agent = :agent AND p.incarnation = :incarnation)
WHERE name = :name AND token = :token AND renewals = :renewals AND COALESCE(holder, '') = :holder
    AND COALESCE(locked_by, :deployment) = :deployment;

-- name: renew_lease(name, agent, token)!
-- A sign of life for a lease that is still held.
UPDATE environments SET renewals = renewals + 1, renewed_at = surefoot_now()
WHERE name = :name AND holder = :agent AND token = :token;

-- name: holds_lease(name, agent, token)$
-- Whether a lease is still held, for what is no harm if it comes late.
SELECT 1 FROM environments WHERE name = :name AND holder = :agent AND token = :token;

-- name: release_lease(name)!
-- Nobody holds the lease any more; the token stays.
UPDATE environments SET holder = NULL, incarnation = NULL, entered = 0 WHERE name = :name;

-- name: environments()
-- All environments, each with all that has not ended in it; index deployments_open.
SELECT e.name, e.current_version, e.previous_version, e.locked_by,
    e.holder, e.token, e.renewals, e.ttl, surefoot_now() - e.renewed_at,
    CASE WHEN e.frozen_until > surefoot_now() THEN e.frozen END, d.id, d.status
FROM environments AS e
LEFT JOIN deployments AS d ON d.environment = e.name AND d.finished_at IS NULL
ORDER BY e.name, d.number;

-- name: environment(name)
-- The same for one environment.
SELECT e.name, e.current_version, e.previous_version, e.locked_by,
    e.holder, e.token, e.renewals, e.ttl, surefoot_now() - e.renewed_at,
    CASE WHEN e.frozen_until > surefoot_now() THEN e.frozen END, d.id, d.status
FROM environments AS e
LEFT JOIN deployments AS d ON d.environment = e.name AND d.finished_at IS NULL
WHERE e.name = :name
ORDER BY d.number;

-- name: work()
-- In each environment what comes next: what was begun before what was not; nothing that has not begun while it is locked or
-- frozen, or before it is ready. Index deployments_wanting, whose size is the queue's.
SELECT w.environment, w.id, w.holder, w.incarnation, w.entered, w.token, w.renewals, w.ttl, w.age
FROM (
    SELECT d.environment, d.id, d.requested_at,
        e.holder, e.incarnation, e.entered, e.token, e.renewals, e.ttl, surefoot_now() - e.renewed_at AS age,
        ROW_NUMBER() OVER (
            PARTITION BY d.environment
            ORDER BY CASE WHEN d.status IN ('queued', 'waiting') THEN 1 ELSE 0 END, d.number
        ) AS place
    FROM deployments AS d
    JOIN environments AS e ON e.name = d.environment
    WHERE d.wants_agent = 1 AND (d.ready_at = 0 OR d.ready_at <= surefoot_now())
        AND (d.bar = 0 OR (e.locked_by IS NULL AND (
            d.bar = 1 OR e.frozen_until = 0 OR e.frozen_until <= surefoot_now()
        )))
) AS w
WHERE w.place = 1
ORDER BY w.requested_at, w.id;

-- name: next_ready()$
-- In how many seconds the first is ready of those that wait for a time alone, be it the end of a freeze. Index
-- deployments_wanting.
SELECT MIN(CASE WHEN d.bar = 2 AND e.frozen_until > d.ready_at THEN e.frozen_until ELSE d.ready_at END) - surefoot_now()
FROM deployments AS d
JOIN environments AS e ON e.name = d.environment
WHERE d.wants_agent = 1 AND d.bar > 0 AND e.locked_by IS NULL AND (d.bar < 2 OR e.frozen_until < 1e18);

-- name: set_freeze(name, frozen, frozen_until)!
-- What an environment's own journal folds to.
UPDATE environments SET frozen = :frozen, frozen_until = :frozen_until WHERE name = :name;

-- name: find_deed(environment, event_id)
-- What a call appended to an environment's own journal; unique index (environment, event_id).
SELECT seq, at, data FROM environment_events WHERE environment = :environment AND event_id = :event_id;

-- name: add_deed(environment, at, type, data, event_id)!
-- One more entry of it. Writers have locked the environment's row first.
INSERT INTO environment_events (environment, seq, at, type, data, event_id)
SELECT :environment, COALESCE(MAX(seq), 0) + 1, :at, :type, :data, :event_id
FROM environment_events WHERE environment = :environment;

-- name: chronicle(environment)
-- An environment's own journal; primary key.
SELECT seq, at, data FROM environment_events WHERE environment = :environment ORDER BY seq;
