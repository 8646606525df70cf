-- SPDX-License-Identifier: Apache-2.0
-- Gates: freezes of environments with a journal of their own, and when a deployment that has not begun is ready.

-- The freeze that an environment's own journal folds to, and when it is over (0: there is none; 1e18: not by itself).
ALTER TABLE environments ADD COLUMN frozen TEXT;

-- Apart, so that agents need not look into it.
ALTER TABLE environments ADD COLUMN frozen_until DOUBLE PRECISION NOT NULL DEFAULT 0;

-- From when on an agent has something to do for a deployment.
ALTER TABLE deployments ADD COLUMN ready_at DOUBLE PRECISION NOT NULL DEFAULT 0;

-- What keeps agents from it: 0 nothing, 1 a lock of its environment, 2 a freeze too.
ALTER TABLE deployments ADD COLUMN bar SMALLINT NOT NULL DEFAULT 0;

-- Until now a lock kept agents from what was queued.
UPDATE deployments SET bar = 2 WHERE status = 'queued';

-- What people did to environments, in the order of commits. An entry is found again by its `event_id`.
CREATE TABLE environment_events (
    environment TEXT NOT NULL REFERENCES environments (name),
    seq BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (environment, seq),
    UNIQUE (environment, event_id)
);
