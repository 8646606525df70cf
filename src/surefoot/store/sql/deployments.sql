-- SPDX-License-Identifier: Apache-2.0
-- Deployments and their journals. Writers have locked the environment's row first (lock_environment).

-- name: find_submission(environment, submission)$
-- The deployment that a submission became; unique index (environment, submission).
SELECT id FROM deployments WHERE environment = :environment AND submission = :submission;

-- name: add_deployment(id, environment, number, submission, version, status, wants_agent, token, seq, requested_at, finished_at, ready_at, bar, summary)!
-- A new deployment, as its first event leaves it.
INSERT INTO deployments
    (id, environment, number, submission, version, status, wants_agent, token, seq, requested_at, finished_at, ready_at, bar,
    summary)
VALUES (:id, :environment, :number, :submission, :version, :status, :wants_agent, :token, :seq, :requested_at, :finished_at,
    :ready_at, :bar, :summary);

-- name: head(deployment, event_id)^
-- Where a journal stands, and whether it knows this append already; primary key, and index (deployment, event_id, place).
SELECT d.environment, d.seq, d.token, d.status,
    EXISTS (SELECT 1 FROM events AS e WHERE e.deployment = d.id AND e.event_id = :event_id)
FROM deployments AS d
WHERE d.id = :deployment;

-- name: save_deployment(id, expected_seq, status, wants_agent, token, seq, finished_at, ready_at, bar, summary)!
-- The summary after an append, if nobody appended since; primary key.
UPDATE deployments
SET status = :status, wants_agent = :wants_agent, token = :token, seq = :seq, finished_at = :finished_at,
    ready_at = :ready_at, bar = :bar, summary = :summary
WHERE id = :id AND seq = :expected_seq;

-- name: add_event(deployment, seq, at, type, agent, token, data, event_id, place)!
-- One entry of a journal.
INSERT INTO events (deployment, seq, at, type, agent, token, data, event_id, place)
VALUES (:deployment, :seq, :at, :type, :agent, :token, :data, :event_id, :place);

-- name: find_append(deployment, event_id)
-- The entries that an append made; index (deployment, event_id, place).
SELECT seq, at, data, agent, token FROM events WHERE deployment = :deployment AND event_id = :event_id ORDER BY place;

-- name: journal(deployment, after, up_to)
-- A journal from one entry on; primary key. Journals have no gaps, so `up_to` is as good as a limit.
SELECT seq, at, data, agent, token FROM events
WHERE deployment = :deployment AND seq > :after AND seq <= :up_to
ORDER BY seq;

-- name: journals(environment, after, up_to)
-- Journals of many deployments; unique index (environment, number), then primary key. Numbers have no gaps either.
SELECT d.id, d.number, e.seq, e.at, e.data, e.agent, e.token
FROM deployments AS d
JOIN events AS e ON e.deployment = d.id
WHERE d.environment = :environment AND d.number > :after AND d.number <= :up_to
ORDER BY d.number, e.seq;

-- name: openings(environment, after, up_to)
-- First entries of many journals; unique index (environment, number), then primary key.
SELECT d.id, d.number, e.seq, e.at, e.data, e.agent, e.token
FROM deployments AS d
JOIN events AS e ON e.deployment = d.id AND e.seq = 1
WHERE d.environment = :environment AND d.number > :after AND d.number <= :up_to
ORDER BY d.number;

-- name: summary(deployment)$
-- One summary; primary key.
SELECT summary FROM deployments WHERE id = :deployment;

-- name: history(environment, before, up_to)
-- Summaries of an environment, newest first; unique index (environment, number).
SELECT summary FROM deployments WHERE environment = :environment AND number < :before ORDER BY number DESC LIMIT :up_to;

-- name: find_version(environment, version)$
-- The newest success of one version; index deployments_succeeded.
SELECT summary FROM deployments
WHERE environment = :environment AND version = :version AND status = 'succeeded'
ORDER BY number DESC LIMIT 1;

-- name: find_other_version(environment, version)$
-- The newest success of any other version; unique index (environment, number), read from its end.
SELECT summary FROM deployments
WHERE environment = :environment AND version <> :version AND status = 'succeeded'
ORDER BY number DESC LIMIT 1;

-- name: queue_position(deployment)$
-- How many of the queue are not behind this one, itself included; primary key, then index deployments_open.
SELECT COUNT(*) FROM deployments AS me
JOIN deployments AS other ON other.environment = me.environment AND other.number <= me.number
WHERE me.id = :deployment AND me.status IN ('queued', 'waiting')
    AND other.finished_at IS NULL AND other.status IN ('queued', 'waiting');
