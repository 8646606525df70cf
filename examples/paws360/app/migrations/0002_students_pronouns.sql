-- SPDX-License-Identifier: Apache-2.0
-- Expand: versions that know nothing of the column go on working.
ALTER TABLE students ADD COLUMN pronouns text;
