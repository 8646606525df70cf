-- SPDX-License-Identifier: Apache-2.0
-- What PostgreSQL alone says in its own way.

-- name: lock_environment(name)^
-- An environment's row and the clock. Others who want to write in this environment wait until we are done.
SELECT next_number, current_version, previous_version, locked_by, holder, token, frozen, surefoot_now()
FROM environments WHERE name = :name FOR UPDATE;

-- name: notify_followers()$
-- Wake who follows, once the transaction is committed.
SELECT pg_notify('surefoot', '');

-- name: notify(asked)$
-- Wake agents too; `asked` names a deployment of which something was asked.
SELECT pg_notify('surefoot', ''), pg_notify('surefoot_agents', :asked);

-- name: lock_numbers()!
-- Let nobody else give numbers to presences until we are done; readers go on.
LOCK TABLE presence IN SHARE ROW EXCLUSIVE MODE;

-- name: try_presence(space, lock_key)$
-- Take an agent's presence for as long as this session lives.
SELECT pg_try_advisory_lock(:space::int, :lock_key::int);

-- name: locked_presences(space, server)
-- Who took its presence from this run of the server, and whether a session still holds it. After a restart nobody is known to be
-- gone: the locks fell with the server, not with their holders.
SELECT p.agent, p.incarnation, p.server = :server AS known,
    EXISTS (
        SELECT 1 FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
            AND l.classid = :space::int::oid AND l.objid = p.lock_key::int::oid
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS held
FROM presence AS p WHERE p.incarnation IS NOT NULL;

-- name: durability()^
-- Whether what is acknowledged survives a crash of the server, a page that is half written then, and the loss of the server.
SELECT current_setting('fsync')::bool, current_setting('full_page_writes')::bool,
    current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') <> 'local';
