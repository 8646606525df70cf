# SPDX-License-Identifier: Apache-2.0
"""Where a deployment is asked for: the CI's run, its identity, and the commits that are new.

Guarantees: it is read once, when the deployment is asked for, and fails nothing: what can't be known is left out. The
claims of an OIDC token are what GitHub's own runner was told by GitHub; the token itself, which is a secret, is not
kept, and nobody here verifies its signature. What people have written is cleaned by whoever knows the secrets.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from surefoot.agent.worktree import git_log
from surefoot.core.events import Change, Origin

#: The claims that say who asked, for what; the rest repeats them.
CLAIMS = (
    "repository",
    "ref",
    "sha",
    "workflow_ref",
    "job_workflow_ref",
    "run_id",
    "run_attempt",
    "actor",
    "event_name",
    "environment",
    "runner_environment",
)
#: Seconds that GitHub gets to hand out a token.
WITHIN = 5.0
#: Commits that are named; more say only that it is a big one.
COMMITS = 50


def origin(folder: Path, environ: Mapping[str, str], since: str | None) -> Origin | None:
    """Return where this is, as far as the environment and git tell; `since` is the commit that runs now."""
    claims = _claims(environ)
    found = Origin(
        run_url=run_url(environ),
        repository=environ.get("GITHUB_REPOSITORY") or environ.get("CI_PROJECT_PATH", ""),
        ref=environ.get("GITHUB_REF") or environ.get("CI_COMMIT_REF_NAME", ""),
        claims=claims,
        since=since,
        changes=tuple(_changes(folder, since)),
    )
    return found if found != Origin() else None


def without_secrets(found: Origin, clean: Callable[[str], str]) -> Origin:
    """Return it with what people have written in it cleaned: names of branches, commits' authors and subjects."""
    changes = tuple(structs.replace(one, author=clean(one.author), subject=clean(one.subject)) for one in found.changes)
    return structs.replace(found, ref=clean(found.ref), changes=changes)


def run_url(environ: Mapping[str, str]) -> str:
    """Return the address of the CI's run: GitHub's, GitLab's, or Jenkins'."""
    server, repository, run = (environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if server and repository and run:
        attempt = environ.get("GITHUB_RUN_ATTEMPT", "1")
        return f"{server}/{repository}/actions/runs/{run}" + (f"/attempts/{attempt}" if attempt != "1" else "")
    return environ.get("CI_JOB_URL") or environ.get("BUILD_URL", "")


def _changes(folder: Path, since: str | None) -> list[Change]:
    base = re.match(r"[0-9a-f]{40,64}", since or "")
    if base is None:
        return []
    split = (line.split("\x1f", 3) for line in git_log(folder, base.group(), COMMITS))
    return [Change(commit, author, subject, float(at)) for commit, author, at, subject in split]


def _claims(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the claims of the job's OIDC token, where the job may have one."""
    url, bearer = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL", ""), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    if urlsplit(url).scheme not in ("http", "https") or not bearer:
        return {}
    import urllib.error
    import urllib.request

    joined = f"{url}{'&' if '?' in url else '?'}audience=surefoot"
    asked = urllib.request.Request(joined, headers={"Authorization": f"Bearer {bearer}"})  # noqa: S310 - see above
    try:
        with urllib.request.urlopen(asked, timeout=WITHIN) as answer:  # noqa: S310
            token = str(msgspec.json.decode(answer.read(65536))["value"])
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return {name: str(claims[name]) for name in CLAIMS if claims.get(name)}
    except (OSError, ValueError, KeyError, IndexError, TypeError, msgspec.DecodeError):
        return {}
