# SPDX-License-Identifier: Apache-2.0
"""Hosts: can they be reached from here, and would they take a deployment."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.core.deployment import FENCES, Deployment
from surefoot.core.errors import Code, Failure
from surefoot.doctor.facts import EnvironmentFacts, Facts, HostFacts
from surefoot.doctor.findings import Depth, Finding, Severity

#: Seconds: what playbooks write on hosts is out of order then.
SKEW = 30.0
#: Debian's packages with what the fence needs, where they have other names.
_PACKAGES = {"flock": "util-linux", "awk": "mawk", "tr": "coreutils"}
#: Bytes that a host must have free.
FREE = 100e6


def inventory(facts: Facts) -> Iterator[Finding]:
    """Not even the names of the hosts are known."""
    for environment in facts.environments:
        if (failure := environment.inventory_failure) is not None:
            yield Finding(
                "inventory",
                Severity.BROKEN,
                Depth.CONFIG,
                f"{environment.row.name}: the hosts of {environment.inventory} can't be known",
                (failure.message,),
                failure.hint or f"ansible-inventory -i {environment.inventory} --list",
                environment=environment.row.name,
                code=failure.code,
                runbook="network-unreachable",
            )


def unreached(facts: Facts) -> Iterator[Finding]:
    """Why a host did not answer: ssh's own words first, then what a name and a connection tell."""
    for environment in facts.environments:
        lost = [host for host in environment.hosts if host.failure is not None]
        for host in lost:
            assert host.failure is not None
            evidence = [host.failure.message]
            if host.network:
                evidence.append(host.network)
            if len(lost) == len(environment.hosts) > 1:
                evidence.append(f"so it is with all {len(lost)} hosts: look at this machine's network first")
            yield Finding(
                f"host-{str(host.failure.code).removeprefix('SF-HOST-').lower()}",
                Severity.BROKEN,
                Depth.HOSTS,
                f"{environment.row.name}: {host.name} can't be reached from {facts.here}: {_why(host)}",
                tuple(evidence),
                _way_back(host) or host.failure.hint,
                environment=environment.row.name,
                code=host.failure.code,
                runbook="secret-rotation" if host.failure.code is Code.HOST_AUTH else "network-unreachable",
                host=host.name,
            )


_NAMES = "getent hosts {address} || cat /etc/resolv.conf; or name an IP address as its ansible_host in the inventory"
#: What mends a way to a host, by how far it goes; see `look.way`.
_WAYS = (
    ("nothing listens there", "on {host}, at its console: systemctl restart ssh"),
    ("says nothing", "on {host}, at its console: systemctl restart ssh; if that hangs, restart the machine"),
    ("does not answer within", "power {host} on; if it is on, at its console: nft list ruleset"),
    ("can't be resolved", _NAMES),
    ("no name server", _NAMES),
)


def _way_back(host: HostFacts) -> str | None:
    assert host.failure is not None
    if host.failure.code is not Code.HOST_UNREACHABLE:
        return None
    fix = next((fix for words, fix in _WAYS if words in host.network), None)
    return fix.format(host=host.name, address=host.address) if fix else None


_WORDS = {
    Code.HOST_AUTH: "it does not accept the key",
    Code.HOST_KEY_CHANGED: "its key has changed",
    Code.HOST_KEY_UNKNOWN: "its key is not known here",
    Code.HOST_PYTHON: "it has no Python",
    Code.HOST_DISK_FULL: "its disk is full",
    Code.HOST_SUDO: "its user can't become root without a password",
}


def _why(host: HostFacts) -> str:
    assert host.failure is not None
    return _WORDS.get(host.failure.code) or host.network or "it does not answer"


def unfit(facts: Facts) -> Iterator[Finding]:
    """A host that answers, and that a deployment would fail on."""
    for environment in facts.environments:
        for host in environment.hosts:
            if host.answered:
                yield from _unfit(facts, environment, host)


def _unfit(facts: Facts, environment: EnvironmentFacts, host: HostFacts) -> Iterator[Finding]:
    told, user = host.told, host.told.get("user", "the user")

    def finding(rule: str, title: str, fix: str, code: Code, severity: Severity = Severity.BROKEN) -> Finding:
        return Finding(
            rule,
            severity,
            Depth.HOSTS,
            f"{environment.row.name}: {host.name} {title}",
            (f"looked at as {user} from {facts.here}",),
            fix,
            environment=environment.row.name,
            code=code,
            runbook="network-unreachable",
            host=host.name,
        )

    fence = told.get("fence", "")
    if told.get("sudo") != "yes" and (why := _needs_sudo(environment, host)) is not None:
        sudoers = f"/etc/sudoers.d/{user}"
        yield finding(
            "host-sudo",
            f"does not let {user} become root without a password, {why}",
            f"on {host.name}: echo '{user} ALL=(ALL) NOPASSWD: ALL' > {sudoers}",
            Code.HOST_SUDO,
        )
    if not told.get("python", "").startswith("3."):
        yield finding("host-python", "has no Python 3", f"on {host.name}: apt-get install python3", Code.HOST_PYTHON)
    if missing := told.get("missing"):
        yield finding(
            "fence-programs",
            f"has no {missing}, which the fence needs",
            f"on {host.name}: apt-get install {' '.join(sorted({_PACKAGES.get(one, one) for one in missing.split()}))}",
            Code.FENCE_FOLDER,
        )
    free = int(told["free"]) * 1024 if told.get("free", "").isdigit() else None
    if free is not None and free < FREE:
        yield finding(
            "host-disk",
            f"has {free / 1e6:.0f} MB free on the disk of {fence}",
            f"on {host.name}: df -h {fence}",
            Code.HOST_DISK_FULL,
        )
    elif told.get("fence_writable") != "yes":
        yield finding(
            "fence-folder",
            f"does not let {user} write the fence's folder {fence}",
            f"on {host.name}: sudo sh -c 'mkdir -p {fence} && chown -R {user} {fence}'",
            Code.FENCE_FOLDER,
        )
    if host.skew is not None and host.skew > SKEW:
        yield finding(
            "host-clock",
            f"has a clock that is {host.skew:.0f} s off",
            f"on {host.name}: timedatectl set-ntp true",
            Code.PREFLIGHT_FAILED,
            Severity.WARNING,
        )


def _needs_sudo(environment: EnvironmentFacts, host: HostFacts) -> str | None:
    """Return why a deployment needs to become root there, as far as is known: only a playbook knows for sure."""
    if host.becomes:
        return "as the inventory wants it"
    failures = (
        failure
        for deployment in (environment.running, environment.last, environment.lock)
        if deployment is not None
        for failure in _failures(deployment)
    )
    if any(f is not None and f.code is Code.HOST_SUDO and f.host in (host.name, None) for f in failures):
        return "which a deployment has failed of"
    return None


def _failures(deployment: Deployment) -> list[Failure | None]:
    return [deployment.cause, deployment.outcome, *(run.failure for run in deployment.steps)]


def fences(facts: Facts) -> Iterator[Finding]:
    """A host that was fenced to a token which this store has not given out yet refuses all that comes from it."""
    for environment in facts.environments:
        lease = environment.row.lease
        given = lease.token if lease is not None else 0
        ahead = [host for host in environment.hosts if host.token is not None and host.token // FENCES > given]
        for host in ahead:
            assert host.token is not None
            folder = host.told.get("fence_of", "the fence's folder")
            yield Finding(
                "fence-ahead",
                Severity.BROKEN,
                Depth.HOSTS,
                f"{environment.row.name}: {host.name} is fenced to token {host.token // FENCES}, which this store has "
                "not given out yet: it was restored from a backup, or another copy of it is in use",
                (
                    f"the store's newest token is {given}",
                    f"{folder}/token on {host.name}",
                    f"this store is {facts.store.where}",
                ),
                f"make sure that nothing else uses another copy of the store, then on {host.name}: rm -r {folder}",
                environment=environment.row.name,
                code=Code.FENCE_STALE,
                runbook="store-down",
                host=host.name,
            )
        had = [host for host in environment.hosts if host.token is not None]
        succeeded = environment.row.current_version is not None
        for host in environment.hosts:
            if host.answered and host.token is None and had and succeeded:
                yield Finding(
                    "fence-lost",
                    Severity.WARNING,
                    Depth.HOSTS,
                    f"{environment.row.name}: {host.name} has lost its fence: it would not refuse a stale agent",
                    (f"others have theirs: {', '.join(other.name for other in had)}",),
                    f"surefoot deploy {environment.row.name} {environment.row.current_version}",
                    environment=environment.row.name,
                    code=Code.FENCE_FOLDER,
                    runbook="network-partition",
                    host=host.name,
                )


RULES = (inventory, unreached, unfit, fences)
