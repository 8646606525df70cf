# SPDX-License-Identifier: Apache-2.0
"""Whether an environment may be drilled now, by what Surefoot and the hosts say of it. Decides, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from surefoot.core.errors import Code, ConfigError, RefusedError, UsageError
from surefoot.core.lease import AgentStatus
from surefoot.drills.staging.settings import Settings

Json = Mapping[str, Any]


def idle(row: Json) -> str:
    """Return the version that an environment runs by its journal. RefusedError unless it is idle and free."""
    name = row["name"]
    if row["locked_by"]:
        raise RefusedError(
            f"{name} is stranded by {row['locked_by']}: a person has to repair it first",
            hint=f"surefoot doctor {row['locked_by']}",
        )
    if row["frozen"]:
        raise RefusedError(
            f"{name} is frozen by {row['frozen']['by']}: {row['frozen']['reason']}",
            code=Code.FROZEN,
            hint=f"surefoot unfreeze {name}, if that is yours to do",
        )
    if waits := [one for one in (row["running"], *row["queue"]) if one]:
        raise RefusedError(
            f"{name} is not idle: {', '.join(waits[:5])} {'goes' if len(waits) == 1 else 'go'} before a drill",
            code=Code.DRILL,
            hint=f"surefoot events {waits[0]} --follow",
        )
    if row["current_version"] is None:
        raise RefusedError(
            f"nothing was deployed to {name} yet: there is no version to go back to",
            code=Code.DRILL,
            hint=f"surefoot deploy {name} VERSION",
        )
    return str(row["current_version"])


def open_gates(plan: Json) -> None:
    """RefusedError if a deployment of a version would be refused, or wait for somebody."""
    what = f"{plan['environment']} {plan['version']}"
    if refused := plan["refused"]:
        raise RefusedError(
            f"a deployment of {what} would be refused: {refused['message']}",
            code=Code(refused["code"]),
            hint=refused["hint"],
        )
    if plan["gates"]:
        raise RefusedError(
            f"a deployment of {what} would wait: {'; '.join(plan['gates'])}",
            code=Code.DRILL,
            hint="drills need an environment whose deployments wait for nobody: see approvals, windows in surefoot.yml",
        )


def hosts_of(plan: Json, settings: Settings) -> dict[str, str]:
    """Return the hosts that are deployed to, with their addresses. ConfigError if drill.yml names others."""
    names = plan["hosts"]
    if unknown := [name for name in settings.hosts if name not in names]:
        raise ConfigError(
            f"drill.yml: staging.hosts: {unknown[0]} is not in the inventory of {settings.environment}",
            hint=f"there are: {', '.join(names) or 'none'}",
        )
    if not names:
        raise ConfigError(
            f"{settings.environment} has no inventory: there are no hosts to look at",
            code=Code.NO_HOSTS,
            hint="drills judge by what hosts say",
        )
    return {name: settings.hosts.get(name, name) for name in names}


def known_step(plan: Json, settings: Settings) -> None:
    """UsageError if the step that drill.yml calls the middle does not exist."""
    steps = [step["name"] for step in plan["steps"]]
    if settings.middle is not None and settings.middle not in steps:
        raise UsageError(
            f"drill.yml: staging.middle: {settings.environment} has no step {settings.middle!r}",
            hint=f"there are: {', '.join(steps)}",
        )


def agents_there(agents: Iterable[Json], needed: int) -> list[str]:
    """Return the agents that take work. RefusedError if there are fewer than needed."""
    found = [row["name"] for row in agents if AgentStatus(row["status"]).able]
    if len(found) < needed:
        raise RefusedError(
            f"{len(found)} agents are online ({', '.join(found) or 'none'}), and {needed} are needed",
            code=Code.DRILL,
            hint="surefoot agents; surefoot agent run NAME starts one",
        )
    return found


def one_version(found: Mapping[str, str | None], journal: str, url: str) -> None:
    """RefusedError unless all hosts run the version that the journal names."""
    if silent := [name for name, version in found.items() if version is None]:
        raise RefusedError(
            f"{', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not say which version runs there ({url})",
            code=Code.HOST_UNREACHABLE,
            hint="is the host up? drill.yml: runs (url, key) and staging.hosts say where it is asked",
        )
    if set(found.values()) != {journal}:
        said = ", ".join(f"{name} runs {version}" for name, version in found.items())
        raise RefusedError(
            f"{said}, and Surefoot's journal says {journal}",
            code=Code.VERSIONS_MIXED,
            hint="deploy one version first; if it is one, runs.key in drill.yml may name something else than versions",
        )
