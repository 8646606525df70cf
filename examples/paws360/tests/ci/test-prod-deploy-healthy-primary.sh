#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A deploy with everybody well: the primary does it, on both hosts, with no request lost.
# Played for real in a lab on this machine; needs root. REPORTS: where to write reports. Exit 0 only if all of it passed.
set -euo pipefail
cd "$(dirname "$0")/../.."
reports=${REPORTS:-build/drills}
exec "${SUREFOOT:-surefoot}" drill healthy-primary --project . --report "$reports/healthy-primary.md" --junit "$reports/healthy-primary.xml" "$@"
