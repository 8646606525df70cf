#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The primary is stopped, killed, frozen, without power, cut off; before a deploy, in its middle, while it is put back.
# Played for real in a lab on this machine; needs root. REPORTS: where to write reports. Exit 0 only if all of it passed.
set -euo pipefail
cd "$(dirname "$0")/../.."
reports=${REPORTS:-build/drills}
exec "${SUREFOOT:-surefoot}" drill failover --project . --report "$reports/failover.md" --junit "$reports/failover.xml" "$@"
