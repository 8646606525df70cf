# SPDX-License-Identifier: Apache-2.0
"""The demo's verdict: were the promises kept? Computed from what the hosts recorded and answer.

Does not prove that nothing touched the hosts unrecorded: the black boxes hold what the demo's playbooks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from surefoot.demo.hosts import DemoHost, Record


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, whether it was kept, and what shows it."""

    promise: str
    kept: bool
    evidence: str


def judge(hosts: Sequence[DemoHost], expected: str) -> list[Finding]:
    """Examine the hosts, which should all run `expected` by now."""
    try:
        records = {host.name: host.records() for host in hosts}
    except (msgspec.DecodeError, OSError) as error:
        return [Finding("one at a time", False, f"a host's black box can't be read: {error}")]
    return [one_at_a_time(records), one_version(hosts, expected)]


def one_at_a_time(records: dict[str, list[Record]]) -> Finding:
    """Look for a command of an older token after the first one of a newer token, on any host."""
    merged = sorted(
        ((host, place, record) for host, lines in records.items() for place, record in enumerate(lines)),
        key=lambda entry: (entry[2].at, entry[0], entry[1]),
    )
    if not merged or not all(records.values()):
        silent = ", ".join(host for host, lines in records.items() if not lines)
        return Finding("one at a time", False, f"nothing was recorded on {silent or 'any host'}")
    newest = merged[0][2]
    for host, _, record in merged:
        if record.token < newest.token:
            late = (
                f"{host} ran '{record.what}' of {record.deployment} with token {record.token} "
                f"{record.at - newest.at:.2f} s after '{newest.what}' of {newest.deployment} with token {newest.token}"
            )
            return Finding("one at a time", False, late)
        if record.token > newest.token:
            newest = record
    tokens = len({record.token for _, _, record in merged})
    return Finding(
        "one at a time",
        True,
        f"{len(merged)} commands under {tokens} tokens; not one of an older token after a newer one's first",
    )


def one_version(hosts: Sequence[DemoHost], expected: str) -> Finding:
    """Ask every host which version it runs, and whether that is well."""
    wrong = []
    for host in hosts:
        linked, answer, health = host.linked_version(), host.ask("/version"), host.ask("/health")
        if linked != expected:
            wrong.append(f"{host.name} is linked to {linked}")
        if answer.version != expected:
            wrong.append(f"{host.name} answers as {answer.version or 'nothing'}")
        if health.status != 200:
            wrong.append(f"{host.name} is not healthy (HTTP {health.status})")
    if wrong:
        return Finding("all or nothing", False, f"expected {expected} everywhere, but " + ", ".join(wrong))
    return Finding(
        "all or nothing", True, f"{' and '.join(host.name for host in hosts)} link to, run and serve {expected}"
    )


def nothing_lost(requests: int, lost: int) -> Finding:
    """Say whether customers noticed anything."""
    if requests == 0:
        return Finding("customers served", False, "nobody asked the service")
    return Finding("customers served", lost == 0, f"{requests} requests from first deploy to last, {lost} lost")
