# SPDX-License-Identifier: Apache-2.0
"""The sections `github`, `incidents` and `notify`: what they make of a plan, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.checks.registry import KINDS
from surefoot.config.freeze import freeze
from surefoot.config.loading import load
from surefoot.core.errors import ConfigError
from surefoot.core.plan import Plan
from surefoot.core.targets import GitHubAccess, GitHubIssue, GitHubStatus, Message, Moment, Webhook, secrets_of

BASE = "project: p\nenvironments:\n  prod:\n    steps: [{name: go, run: 'true'}]\n"
FULL = """\
github: {repository: acme/paws360, token: "${GITHUB_TOKEN}"}
incidents:
  github: {assignees: [oncall-sre]}
  on: [rolled_back, stranded, failed]
  runbook: https://wiki.invalid/r
notify:
  - {url: "slack://${SLACK}/#ops", on: [stranded]}
  - {webhook: "${HOOK}"}
"""
ENVIRON = {"GITHUB_TOKEN": "ghp_value", "SLACK": "a/b/c", "HOOK": "https://example.invalid/secret"}


def plan(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> Plan:
    file = tmp_path / "surefoot.yml"
    file.write_text(text + BASE)
    return freeze(load(file, kinds=KINDS, environ=environ or ENVIRON), "prod", environ or ENVIRON)


def test_the_plan_names_who_is_told_and_holds_no_secrets_value(tmp_path: Path) -> None:
    found = plan(FULL, tmp_path)
    access = GitHubAccess("acme/paws360", token="${GITHUB_TOKEN}")
    incident = (Moment.ROLLED_BACK, Moment.STRANDED, Moment.FAILED)
    usual = (Moment.ROLLED_BACK, Moment.STRANDED, Moment.RESOLVED)
    runbook = "https://wiki.invalid/r"
    labels = ("production-incident", "production-rollback")
    assert found.targets == (
        GitHubIssue("github-issue", access, labels, ("oncall-sre",), incident, runbook),
        GitHubStatus("github-status", access),
        Message("notify-1", "slack://${SLACK}/#ops", (Moment.STRANDED,), runbook),
        Webhook("notify-2", "${HOOK}", usual, runbook),
    )
    assert not [value for value in ENVIRON.values() if value in repr(found)]
    assert found.hidden == ("GITHUB_TOKEN", "SLACK", "HOOK")
    assert secrets_of(found.targets[0]) == ("GITHUB_TOKEN",)


def test_the_repository_is_the_one_that_ci_names(tmp_path: Path) -> None:
    text = 'incidents: {github: {token: "${GITHUB_TOKEN}"}}\n'
    (target,) = plan(text, tmp_path, {"GITHUB_REPOSITORY": "acme/shop"}).targets
    assert isinstance(target, GitHubIssue) and target.github.repository == "acme/shop"
    with pytest.raises(ConfigError, match="no repository"):
        plan(text, tmp_path, {"HOME": "/"})


def test_an_app_opens_the_repository(tmp_path: Path) -> None:
    text = 'github: {repository: a/b, app: {id: "${APP}", private_key: "${KEY}"}, commit_status: false}\n'
    (target,) = plan(text, tmp_path).targets
    assert isinstance(target, GitHubStatus)
    assert (target.github.app_id, target.github.private_key, target.commit_status) == ("${APP}", "${KEY}", False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("github: {repository: a/b, token: ghp_literal}", "must name a variable"),
        ("github: {repository: a/b}", "needs a token or an app"),
        ('github: {repository: nothing, token: "${T}"}', "is not a repository"),
        ("incidents: {github: {}}", "needs a token or an app"),
        ('incidents: {github: {token: "${T}"}, on: [succeeded]}', "is not allowed"),
        ("notify: [{}]", "needs url or webhook"),
        ("notify: [{url: 'mailto://me:secret@example.com'}]", "holds a password"),
        ("notify: [{webhook: nowhere}]", "is not an address"),
        ("incidents: {runbook: 'javascript:x'}", "is not a web address"),
    ],
)
def test_what_can_not_work_is_refused_without_telling_a_secret(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(text + "\n", tmp_path)
    assert why in str(refused.value)
    assert "ghp_literal" not in str(refused.value) and "me:secret" not in str(refused.value)
