# SPDX-License-Identifier: Apache-2.0
"""A deployment as GitHub shows it: a GitHub Deployment with its statuses, and the status of the commit.

Guarantees: one GitHub Deployment for each of ours, found again by its payload after a lost answer. A status may be
written twice: it says the same. Nothing is told of a deployment whose commit is not known.
"""

from __future__ import annotations

import re
from typing import Any

from surefoot.core.deployment import Deployment
from surefoot.core.targets import GitHubStatus, Moment
from surefoot.integrations.delivery import Parcel, Told
from surefoot.integrations.github import GitHub
from surefoot.reports import story as tell

#: GitHub's limit.
LONGEST_DESCRIPTION = 140

_DEPLOYMENT_STATES = {
    Moment.ACCEPTED: "queued",
    Moment.STARTED: "in_progress",
    Moment.SUCCEEDED: "success",
    Moment.FAILED: "failure",
    Moment.ROLLED_BACK: "failure",
    Moment.CANCELLED: "inactive",
    Moment.STRANDED: "error",
    Moment.RESOLVED: "inactive",
}
_COMMIT_STATES = {
    Moment.ACCEPTED: "pending",
    Moment.STARTED: "pending",
    Moment.SUCCEEDED: "success",
    Moment.FAILED: "failure",
    Moment.ROLLED_BACK: "failure",
    Moment.CANCELLED: "error",
    Moment.STRANDED: "error",
}


async def tell_status(target: GitHubStatus, parcel: Parcel) -> Told:
    """Write what the deployment has come to."""
    state, moment = parcel.story.state, parcel.story.moment
    commit = re.match(r"[0-9a-f]{40}", state.commit or "")
    if commit is None:
        return Told("nothing to tell: the commit is not known")
    github = GitHub(target.github, parcel.reveal)
    common = {"description": tell.headline(state, moment)[:LONGEST_DESCRIPTION]}
    run_url = state.origin.run_url if state.origin is not None else ""
    reference = ""
    if target.deployments:
        reference = await _deployment(github, commit.group(), parcel)
        status = {
            **common,
            "state": _DEPLOYMENT_STATES[moment],
            "environment": state.environment,
            "auto_inactive": moment is Moment.SUCCEEDED,
        }
        if run_url:
            status["log_url"] = run_url
        await github.send("POST", f"/deployments/{reference}/statuses", status)
    if target.commit_status and moment in _COMMIT_STATES:
        verdict = {**common, "state": _COMMIT_STATES[moment], "context": f"surefoot/{state.environment}"}
        if run_url:
            verdict["target_url"] = run_url
        await github.send("POST", f"/statuses/{commit.group()}", verdict)
    return Told(f"{_DEPLOYMENT_STATES[moment]} at commit {commit.group()[:12]}", "", reference)


async def _deployment(github: GitHub, commit: str, parcel: Parcel) -> str:
    """Return the number of our GitHub Deployment, made now if there is none."""
    known = next((told.reference for told in parcel.before if told.reference), "")
    if known:
        return known
    state = parcel.story.state
    payload = {"surefoot": f"{parcel.story.store}:{state.id}"}
    if parcel.tried:
        query = {"sha": commit, "environment": state.environment}
        async for found in github.pages("/deployments", **query):
            if found.get("payload") == payload:
                return str(found["id"])
    made = await github.send("POST", "/deployments", _wanted(state, commit, payload))
    return str(made.json()["id"])


def _wanted(state: Deployment, commit: str, payload: dict[str, str]) -> dict[str, Any]:
    return {
        "ref": commit,
        "task": "rollback" if state.rollback else "deploy",
        "auto_merge": False,
        "required_contexts": [],
        "payload": payload,
        "environment": state.environment,
        "description": f"{state.id}: {state.version}"[:LONGEST_DESCRIPTION],
        "production_environment": state.environment == "production",
    }
