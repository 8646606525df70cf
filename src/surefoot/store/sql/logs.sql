-- SPDX-License-Identifier: Apache-2.0
-- Output of deployments.

-- name: take_log_ids(deployment, count)$
-- Give out the next ids of a log, and hold its row until they are committed.
INSERT INTO log_ends (deployment, last) VALUES (:deployment, :count)
ON CONFLICT (deployment) DO UPDATE SET last = log_ends.last + excluded.last
RETURNING last;

-- name: add_log_line(deployment, id, text, stream, step, direction, attempt, agent, token)*!
-- Lines of a log.
INSERT INTO logs (deployment, id, at, text, stream, step, direction, attempt, agent, token)
VALUES (:deployment, :id, surefoot_now(), :text, :stream, :step, :direction, :attempt, :agent, :token);

-- name: log(deployment, after, up_to)
-- Lines from one id on; primary key.
SELECT text, stream, step, direction, attempt, agent, token, at, id FROM logs
WHERE deployment = :deployment AND id > :after
ORDER BY id LIMIT :up_to;

-- name: log_end(deployment)$
-- The last id of a log; primary key.
SELECT last FROM log_ends WHERE deployment = :deployment;
