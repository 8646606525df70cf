-- SPDX-License-Identifier: Apache-2.0
-- Agents and their presence.

-- name: report(name, role, incarnation, preference, cpu_percent, memory_percent, disk_percent, degraded, running, stopping, ends_with, replace)$
-- A sign of life, answered by whether the agent is drained; of another process of that name only where it may replace
-- the one that is known: else no answer.
INSERT INTO agents
    (name, role, incarnation, preference, cpu_percent, memory_percent, disk_percent, degraded, running, stopping, ends_with,
    last_seen_at)
VALUES (:name, :role, :incarnation, :preference, :cpu_percent, :memory_percent, :disk_percent, :degraded, :running, :stopping,
    :ends_with, surefoot_now())
ON CONFLICT (name) DO UPDATE
SET role = excluded.role, incarnation = excluded.incarnation, preference = excluded.preference,
    cpu_percent = excluded.cpu_percent, memory_percent = excluded.memory_percent, disk_percent = excluded.disk_percent,
    degraded = excluded.degraded, running = excluded.running, stopping = excluded.stopping,
    ends_with = excluded.ends_with,
    last_seen_at = excluded.last_seen_at, beats = agents.beats + 1
WHERE agents.incarnation = excluded.incarnation OR :replace = 1
RETURNING draining;

-- name: agents()
-- All agents. There are few.
SELECT name, role, incarnation, preference, cpu_percent, memory_percent, disk_percent, degraded, running, stopping, ends_with,
    draining, beats, last_seen_at, surefoot_now() - last_seen_at
FROM agents ORDER BY name;

-- name: last_report(name)^
-- Which process of that name reported last, how long ago, and whether these were its last words.
SELECT incarnation, surefoot_now() - last_seen_at, stopping FROM agents WHERE name = :name;

-- name: set_drain(name, draining)!
-- Ask an agent to take no more work, or allow it again.
UPDATE agents SET draining = :draining WHERE name = :name;

-- name: add_presence(agent)!
-- A number for the agent's lock, unless it has one.
INSERT INTO presence (agent, lock_key)
SELECT :agent, COALESCE(MAX(lock_key), 0) + 1 FROM presence WHERE true
ON CONFLICT (agent) DO NOTHING;

-- name: lock_key(agent)$
-- The number of the agent's lock.
SELECT lock_key FROM presence WHERE agent = :agent;

-- name: take_presence(agent, incarnation, server)!
-- Which process holds the presence, and which server gave it.
UPDATE presence SET incarnation = :incarnation, server = :server WHERE agent = :agent;

-- name: presences()
-- All presences that were ever taken. There are as many as agents.
SELECT agent, incarnation FROM presence WHERE incarnation IS NOT NULL;

-- name: forget_agent(name, incarnation)!
-- Forget an agent that holds nothing (environments are few).
DELETE FROM agents WHERE name = :name AND incarnation = :incarnation AND NOT EXISTS (SELECT 1 FROM environments WHERE holder = :name);

-- name: forget_presence(agent, incarnation)!
-- Forget the presence of an agent that is known no more.
DELETE FROM presence WHERE agent = :agent AND incarnation = :incarnation AND NOT EXISTS (SELECT 1 FROM agents WHERE name = :agent);
