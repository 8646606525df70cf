# SPDX-License-Identifier: Apache-2.0
"""An incident as a GitHub issue: opened once, commented as the story goes on, closed when it is repaired.

Guarantees: one issue for each deployment, and one comment for each entry, also when GitHub's answer was lost: both
begin with a hidden marker and are looked for before they are made a second time. Whom GitHub does not let be assigned
is mentioned instead.
"""

from __future__ import annotations

from typing import Any

from surefoot.core.targets import AFTERMATH, GitHubIssue, Moment
from surefoot.core.views import rfc3339
from surefoot.integrations.delivery import Parcel, Told
from surefoot.integrations.github import GitHub
from surefoot.integrations.http import refused
from surefoot.reports import incident


async def tell_issue(target: GitHubIssue, parcel: Parcel) -> Told:
    """Open the issue, or comment on it."""
    github = GitHub(target.github, parcel.reveal)
    moment = parcel.story.moment
    number = next((told.reference for told in reversed(parcel.before) if told.reference), "")
    where = next((told.where for told in reversed(parcel.before) if told.reference), "")
    if number and moment in AFTERMATH:
        await _comment(github, number, parcel)
        told = Told("commented on the issue", where, number)
    else:
        told = await _open(github, target, parcel)
    if moment is Moment.RESOLVED:
        await github.send("PATCH", f"/issues/{told.reference}", {"state": "closed", "state_reason": "completed"})
        told = Told(f"{told.what}, and closed it", told.where, told.reference)
    return told


async def _open(github: GitHub, target: GitHubIssue, parcel: Parcel) -> Told:
    found = await _find(github, parcel)
    if found is not None:
        return Told("found the issue again", str(found["html_url"]), str(found["number"]))
    issue: dict[str, Any] = {
        "title": incident.title(parcel.story),
        "body": incident.body(parcel.story, target.runbook),
        "labels": list(target.labels),
        "assignees": list(target.assignees),
    }
    answer = await github.send("POST", "/issues", issue, allow=(422,))
    what = "opened an issue"
    if answer.status == 422 and target.assignees:
        who = " ".join(f"@{name}" for name in target.assignees)
        issue |= {"assignees": [], "body": f"{issue['body']}\n\n{who}: GitHub does not let you be assigned here."}
        answer = await github.send("POST", "/issues", issue)
        what = "opened an issue; GitHub knows none to assign it to"
    if answer.status >= 300:
        raise refused("GitHub", "POST", answer)
    made = answer.json()
    assigned = {str(person["login"]).lower() for person in made.get("assignees") or ()}
    if dropped := [name for name in issue["assignees"] if name.lower() not in assigned]:
        what = f"opened an issue; GitHub did not assign {', '.join(dropped)}"
    return Told(what, str(made["html_url"]), str(made["number"]))


async def _find(github: GitHub, parcel: Parcel) -> dict[str, Any] | None:
    """Return this deployment's issue, open or closed, whatever became of its title and labels."""
    mark = incident.marker(parcel.story)
    since = (rfc3339(parcel.story.state.requested_at) or "")[:19] + "Z"
    async for issue in github.pages("/issues", state="all", since=since, sort="created", direction="desc"):
        if str(issue.get("body") or "").startswith(mark) and "pull_request" not in issue:
            return issue
    return None


async def _comment(github: GitHub, number: str, parcel: Parcel) -> None:
    path = f"/issues/{number}/comments"
    if parcel.tried:
        mark = incident.marker(parcel.story, parcel.story.of)
        async for comment in github.pages(path):
            if str(comment.get("body") or "").startswith(mark):
                return
    await github.send("POST", path, {"body": incident.comment(parcel.story)})
