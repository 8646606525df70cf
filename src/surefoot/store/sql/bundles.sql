-- SPDX-License-Identifier: Apache-2.0
-- Bundles: uploaded in pieces, each in a transaction of its own, and there once the upload is complete.

-- name: find_bundle(digest)$
-- The upload that holds a bundle; index bundles_complete.
SELECT upload FROM bundles WHERE digest = :digest AND complete = 1;

-- name: begin_upload(upload, digest)!
-- An upload begins.
INSERT INTO bundles (upload, digest, started_at) VALUES (:upload, :digest, surefoot_now()) ON CONFLICT (upload) DO NOTHING;

-- name: add_chunk(upload, place, data)!
-- One piece of an upload.
INSERT INTO bundle_chunks (upload, place, data) VALUES (:upload, :place, :data) ON CONFLICT (upload, place) DO NOTHING;

-- name: complete_upload(upload)!
-- The upload is the bundle from now on. Fails on the unique index bundles_complete if another one was faster.
UPDATE bundles SET complete = 1 WHERE upload = :upload;

-- name: old_uploads(seconds)
-- Uploads that were begun long ago and never completed; index bundles_incomplete.
SELECT upload FROM bundles WHERE complete = 0 AND started_at < surefoot_now() - :seconds;

-- name: drop_chunks(upload)!
-- Forget an upload's pieces; primary key.
DELETE FROM bundle_chunks WHERE upload = :upload;

-- name: drop_upload(upload)!
-- Forget an upload; primary key.
DELETE FROM bundles WHERE upload = :upload AND complete = 0;

-- name: chunk(upload, place)$
-- One piece of a bundle; primary key.
SELECT data FROM bundle_chunks WHERE upload = :upload AND place = :place;
