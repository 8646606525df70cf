-- SPDX-License-Identifier: Apache-2.0
-- The first schema, for both databases: types are PostgreSQL's and SQLite takes them as they are (it looks at parts of
-- their names only). Truth values are 0 and 1, times seconds since 1970 by the store's clock, lists and events JSON text.

-- One row per environment: its counter, what it runs, and its lease. `entered`: the holder had taken its presence.
CREATE TABLE environments (
    name TEXT PRIMARY KEY,
    next_number BIGINT NOT NULL DEFAULT 1,
    current_version TEXT,
    previous_version TEXT,
    locked_by TEXT,
    holder TEXT,
    incarnation TEXT,
    entered SMALLINT NOT NULL DEFAULT 0,
    token BIGINT NOT NULL DEFAULT 0,
    renewals BIGINT NOT NULL DEFAULT 0,
    ttl DOUBLE PRECISION NOT NULL DEFAULT 5.0,
    renewed_at DOUBLE PRECISION NOT NULL DEFAULT 0
);

-- One row per deployment: its summary as JSON, and beside it only what is searched. `submission` is the key that was given,
-- or a name of our own for one call of submit: the same one twice is the same deployment.
CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name),
    number BIGINT NOT NULL,
    submission TEXT NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    wants_agent SMALLINT NOT NULL,
    token BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    requested_at DOUBLE PRECISION NOT NULL,
    finished_at DOUBLE PRECISION,
    summary TEXT NOT NULL,
    UNIQUE (environment, number),
    UNIQUE (environment, submission)
);

-- Promise 1, kept by the database itself: no environment ever has two deployments at work.
CREATE UNIQUE INDEX deployments_one_at_a_time ON deployments (environment) WHERE status IN ('running', 'rolling_back');

-- What agents look for; its size is that of the queue, not of the history.
CREATE INDEX deployments_wanting ON deployments (environment, number) WHERE wants_agent = 1;

-- What has not ended: the queue and what runs.
CREATE INDEX deployments_open ON deployments (environment, number) WHERE finished_at IS NULL;

-- Where a version can be rolled back to.
CREATE INDEX deployments_succeeded ON deployments (environment, version, number) WHERE status = 'succeeded';

-- The journals. An append's entries share its `event_id` and count up in `place`: repeated, they are found, not added.
CREATE TABLE events (
    deployment TEXT NOT NULL REFERENCES deployments (id),
    seq BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    type TEXT NOT NULL,
    agent TEXT,
    token BIGINT,
    data TEXT NOT NULL,
    event_id TEXT NOT NULL,
    place BIGINT NOT NULL,
    PRIMARY KEY (deployment, seq),
    UNIQUE (deployment, event_id, place)
);

-- One row per agent: its last sign of life. `beats` counts them, so that observers need no clock.
CREATE TABLE agents (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    preference BIGINT NOT NULL,
    cpu_percent DOUBLE PRECISION NOT NULL,
    memory_percent DOUBLE PRECISION NOT NULL,
    disk_percent DOUBLE PRECISION NOT NULL,
    degraded TEXT NOT NULL,
    running TEXT,
    stopping SMALLINT NOT NULL,
    draining SMALLINT NOT NULL DEFAULT 0,
    beats BIGINT NOT NULL DEFAULT 1,
    last_seen_at DOUBLE PRECISION NOT NULL
);

-- Who took which presence: the number that its lock has, the process that took it, and the server that gave it.
CREATE TABLE presence (
    agent TEXT PRIMARY KEY,
    lock_key BIGINT NOT NULL UNIQUE,
    incarnation TEXT,
    server TEXT
);

-- Output of deployments. `id` counts per deployment, in the order of commits: a follower never misses a line.
CREATE TABLE logs (
    deployment TEXT NOT NULL,
    id BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    text TEXT NOT NULL,
    stream TEXT NOT NULL,
    step TEXT,
    direction TEXT,
    attempt BIGINT,
    host TEXT,
    agent TEXT,
    token BIGINT,
    PRIMARY KEY (deployment, id)
);

-- The last id that each log has given out.
CREATE TABLE log_ends (
    deployment TEXT PRIMARY KEY,
    last BIGINT NOT NULL
);

-- Uploads of bundles; one that is complete is the bundle of its digest.
CREATE TABLE bundles (
    upload TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    complete SMALLINT NOT NULL DEFAULT 0,
    started_at DOUBLE PRECISION NOT NULL
);

-- One bundle per digest.
CREATE UNIQUE INDEX bundles_complete ON bundles (digest) WHERE complete = 1;

-- Uploads that may have been given up.
CREATE INDEX bundles_incomplete ON bundles (started_at) WHERE complete = 0;

-- Their bytes, in pieces that any database takes with ease.
CREATE TABLE bundle_chunks (
    upload TEXT NOT NULL,
    place BIGINT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (upload, place)
);
