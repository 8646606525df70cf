-- SPDX-License-Identifier: Apache-2.0
-- What is still to be told to others. An index of the journals: each row follows from the entry `of` of its deployment's, and goes
-- with the entry that says that it was delivered. So its size is that of what is left to do, not of the history.

CREATE TABLE outbox (
    deployment TEXT NOT NULL REFERENCES deployments (id),
    of BIGINT NOT NULL,
    target TEXT NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    due_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (deployment, target, of)
);

-- What agents look for.
CREATE INDEX outbox_due ON outbox (due_at);
