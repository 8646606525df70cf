#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A deploy is cancelled, its command killed, its CI job cancelled: production stays on one version.
# Played for real in a lab on this machine; needs root. REPORTS: where to write reports. Exit 0 only if all of it passed.
set -euo pipefail
cd "$(dirname "$0")/../.."
reports=${REPORTS:-build/drills}
exec "${SUREFOOT:-surefoot}" drill interruption --project . --report "$reports/interruption.md" --junit "$reports/interruption.xml" "$@"
