-- SPDX-License-Identifier: Apache-2.0
-- What is still to be told to others. Rows come and go in the transactions that write the journal.

-- name: add_delivery(deployment, of, target)!
-- Something to tell, due at once.
INSERT INTO outbox (deployment, of, target, due_at) VALUES (:deployment, :of, :target, surefoot_now());

-- name: drop_delivery(deployment, of, target)!
-- It was told, or given up; primary key.
DELETE FROM outbox WHERE deployment = :deployment AND target = :target AND of = :of;

-- name: advance_deliveries(deployment, of, target)!
-- What comes next of a story is due now; primary key.
UPDATE outbox SET due_at = surefoot_now() WHERE deployment = :deployment AND target = :target AND of > :of;

-- name: deliveries(seconds, up_to)
-- What is due within so many seconds, of each deployment and target only the first; index outbox_due, then primary key.
SELECT o.deployment, o.of, o.target, o.tries, o.due_at - surefoot_now()
FROM outbox AS o
WHERE o.due_at <= surefoot_now() + :seconds
    AND NOT EXISTS (
        SELECT 1 FROM outbox AS earlier
        WHERE earlier.deployment = o.deployment AND earlier.target = o.target AND earlier.of < o.of
    )
ORDER BY o.due_at LIMIT :up_to;

-- name: take_delivery(deployment, of, target, tries, seconds)!
-- Keep others from trying it for a while, if nobody did so since it was read; primary key.
UPDATE outbox SET tries = tries + 1, due_at = surefoot_now() + :seconds
WHERE deployment = :deployment AND target = :target AND of = :of AND tries = :tries AND due_at <= surefoot_now();

-- name: postpone_delivery(deployment, of, target, tries, seconds)!
-- Have it tried again later; primary key.
UPDATE outbox SET due_at = surefoot_now() + :seconds
WHERE deployment = :deployment AND target = :target AND of = :of AND tries = :tries;

-- name: hold_deliveries(deployment, of, target, seconds)!
-- What comes after it in its story waits as long, so that who looks for what is due need not pass over it; primary key.
UPDATE outbox SET due_at = surefoot_now() + :seconds WHERE deployment = :deployment AND target = :target AND of > :of;
