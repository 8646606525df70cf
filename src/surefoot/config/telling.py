# SPDX-License-Identifier: Apache-2.0
"""From the sections `github`, `incidents` and `notify` to the targets of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from surefoot.config import models
from surefoot.core.errors import Code, ConfigError
from surefoot.core.targets import GitHubAccess, GitHubIssue, GitHubStatus, Message, Target, Webhook


def targets(config: models.Config, environ: Mapping[str, str]) -> tuple[Target, ...]:
    """Return who is told of a deployment that is asked for now; refuse a repository that nobody names."""
    return tuple(_targets(config, environ.get("GITHUB_REPOSITORY", "")))


def _targets(config: models.Config, here: str) -> Iterator[Target]:
    incidents = config.incidents or models.Incidents()
    runbook = incidents.runbook or ""
    if incidents.github is not None:
        yield GitHubIssue(
            name="github-issue",
            github=_issue_access(config, incidents.github, here),
            labels=incidents.github.labels,
            assignees=incidents.github.assignees,
            on=incidents.on,
            runbook=runbook,
        )
    if config.github is not None and (config.github.deployments or config.github.commit_status):
        yield GitHubStatus(
            name="github-status",
            github=_access(config.github, here),
            deployments=config.github.deployments,
            commit_status=config.github.commit_status,
        )
    for number, told in enumerate(config.notify, 1):
        name = f"notify-{number}"
        if told.webhook is not None:
            yield Webhook(name, told.webhook, on=told.on, runbook=runbook)
        else:
            assert told.url is not None
            yield Message(name, told.url, on=told.on, runbook=runbook)


def _access(given: models.GitHub, here: str) -> GitHubAccess:
    return _opened(given.repository or here, given.api, given.token, given.app, "github")


def _issue_access(config: models.Config, given: models.IncidentIssue, here: str) -> GitHubAccess:
    base = config.github
    repository = given.repository or (base.repository if base is not None else None) or here
    api = given.api or (base.api if base is not None else models.GitHub.model_fields["api"].default)
    token, app = given.token, given.app
    if token is None and app is None and base is not None:
        token, app = base.token, base.app
    return _opened(repository, api, token, app, "incidents.github")


def _opened(repository: str, api: str, token: str | None, app: models.GitHubApp | None, place: str) -> GitHubAccess:
    if not repository:
        raise ConfigError(
            f"{place}: no repository is named", code=Code.CONFIG_KEY, hint=f"add {place}.repository: owner/name"
        )
    if token is None and app is None:
        raise ConfigError(
            f"{place}: neither a token nor an app is named",
            code=Code.CONFIG_KEY,
            hint=f'add {place}.token: "${{GITHUB_TOKEN}}"',
        )
    if app is not None:
        return GitHubAccess(repository, api, app_id=app.id, private_key=app.private_key)
    return GitHubAccess(repository, api, token=token or "")
