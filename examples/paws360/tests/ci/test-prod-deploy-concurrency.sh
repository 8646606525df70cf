#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two and twenty deploys at once: one after the other, in order, none dropped.
# Played for real in a lab on this machine; needs root. REPORTS: where to write reports. Exit 0 only if all of it passed.
set -euo pipefail
cd "$(dirname "$0")/../.."
reports=${REPORTS:-build/drills}
exec "${SUREFOOT:-surefoot}" drill concurrency --project . --report "$reports/concurrency.md" --junit "$reports/concurrency.xml" "$@"
