-- SPDX-License-Identifier: Apache-2.0
-- Agents that work for one deployment alone, as that of a command does: they stand before nobody in others.

-- The deployment with which an agent ends.
ALTER TABLE agents ADD COLUMN ends_with TEXT;
