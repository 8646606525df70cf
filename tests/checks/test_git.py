# SPDX-License-Identifier: Apache-2.0
"""`git` and `github_artifact`: against real repositories, and a stand-in that is held to GitHub's description."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.checks.registry import KINDS
from tests.support.github import GitHubStandIn, broken, github_stand_in, limited, secondary
from tests.support.looking import context, look
from tests.support.servers import page, saying, silence

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40


# -- by git --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a commit on main, tagged 1.0, and one on side."""
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    git(folder, "tag", "1.0")
    git(folder, "commit", "-q", "--allow-empty", "-m", "two")
    git(folder, "checkout", "-q", "-b", "side")
    git(folder, "commit", "-q", "--allow-empty", "-m", "three")
    return folder


def git(folder: Path, *words: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x"}
    env |= {"GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x"}
    return subprocess.run(
        ["git", *words], cwd=folder, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


async def test_commit_that_is_on_the_branch_passes(repository: Path) -> None:
    commit = git(repository, "rev-parse", "main")
    result = await look("git", context(commit=commit), remote=str(repository))
    assert (result.status, result.message) == (PASS, f"{commit[:12]} is on main of {repository}")
    for name in ("1.0", git(repository, "rev-parse", "1.0")):
        assert (await look("git", remote=f"file://{repository}", commit=name)).status is PASS
    assert (await look("git", context(version="1.0"), remote=str(repository), commit="{version}")).status is PASS


async def test_commit_that_is_not_on_the_branch_fails(repository: Path) -> None:
    for commit in (git(repository, "rev-parse", "side"), OTHER, "2.0"):
        result = await look("git", context(commit=commit), remote=str(repository))
        assert (result.status, "is not on main" in result.message) == (FAIL, True), result.message
    result = await look("git", context(commit=OLD), remote=str(repository), branch="nowhere")
    assert (result.status, "can't be fetched" in result.message) == (FAIL, True), result.message


async def test_remote_that_is_none_or_hangs_fails(repository: Path) -> None:
    where = context(commit=OLD)
    result = await look("git", where, remote=f"{repository}/nothing")
    assert (result.status, "can't be fetched" in result.message) == (FAIL, True), result.message
    async with saying(page("hello")) as port:
        result = await look("git", where, remote=f"http://me:s3cret@127.0.0.1:{port}/x.git")
        assert (result.status, "s3cret" in result.message) == (FAIL, False), result.message
    async with saying(silence) as port:
        result = await look("git", where, remote=f"http://127.0.0.1:{port}/x.git", timeout="500ms")
        assert result.status is FAIL


async def test_deployment_without_a_commit_fails() -> None:
    for kind, options in (("git", {}), ("github_artifact", {"name": "x"})):
        result = await look(kind, context(commit=""), repository="acme/paws360", **options)
        assert (result.status, "is not known" in result.message) == (FAIL, True), result.message


# -- by GitHub -----------------------------------------------------------------------------------------------


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    branches = {"main": [OLD, NEW], "side": [OTHER]}
    with github_stand_in(branches=branches, protected=("main",)) as one:
        yield one
        assert one.wrong == []


async def ask(github: GitHubStandIn, commit: str = NEW, kind: str = "git", **options: Any) -> CheckResult:
    where = context(secrets={"TOKEN": github.token, "BAD": "ghp_wrong"}, commit=commit)
    given = {"repository": github.repository, "token": "${TOKEN}", "api": github.url, **options}
    return await look(kind, where, **given)


def run(name: str, conclusion: str | None = "success", sha: str = NEW) -> dict[str, Any]:
    status = "in_progress" if conclusion is None else "completed"
    return {"name": name, "head_sha": sha, "status": status, "conclusion": conclusion}


async def test_commit_on_a_protected_branch_passes(github: GitHubStandIn) -> None:
    for commit in (OLD, NEW):
        result = await ask(github, commit, protected=True)
        assert (result.status, f"{commit[:12]} is on main of acme/paws360" in result.message) == (PASS, True)
    result = await ask(github, OTHER)
    assert (result.status, "is not on main" in result.message) == (FAIL, True), result.message
    result = await ask(github, "d" * 40)
    assert (result.status, "has no commit" in result.message) == (FAIL, True), result.message
    result = await ask(github, OTHER, branch="side", protected=True)
    assert (result.status, "is not protected" in result.message) == (FAIL, True), result.message
    assert "no branch nowhere" in (await ask(github, branch="nowhere")).message


@pytest.mark.parametrize(
    ("runs", "statuses", "options", "said"),
    [
        (["build", "test"], [], {"ci": True}, None),
        ([], [("ci/jenkins", "success")], {"ci": True}, None),
        ([], [], {"ci": True}, "has not checked"),
        (["build", ("test", "failure")], [], {"ci": True}, "test has not passed"),
        (["build", ("test", "failure")], [], {"ci": ["build"]}, None),
        (["build"], [], {"ci": ["build", "test"]}, "by test"),
        (["build", ("deploy", None)], [], {"ci": True}, "deploy has not ended"),
        (["build", ("deploy", None)], [], {"ci": True, "ci_except": ["deploy"]}, None),
        (["build", ("lint", "skipped"), ("docs", "neutral")], [], {"ci": True}, None),
        (["build"], [("ci/jenkins", "pending")], {"ci": True}, "ci/jenkins has not ended"),
        (["build"], [("ci/jenkins", "error")], {"ci": True}, "ci/jenkins has not passed"),
        ([(f"job{n}", "timed_out") for n in range(120)], [], {"ci": True}, "and 117 more have not passed"),
    ],
)
async def test_ci_must_have_passed_the_commit(
    github: GitHubStandIn, runs: list[Any], statuses: list[Any], options: dict[str, Any], said: str | None
) -> None:
    github.check_runs = [run(one) if isinstance(one, str) else run(*one) for one in runs]
    github.check_runs.append(run("build", "failure", sha=OLD))
    github.commit_statuses = [{"sha": NEW, "context": name, "state": state} for name, state in statuses]
    result = await ask(github, **options)
    assert result.status is (PASS if said is None else FAIL), result.message
    assert (said or "CI has passed it") in result.message


async def test_artifact_of_the_commit_must_be_there(github: GitHubStandIn) -> None:
    def artifact(name: str, sha: str = NEW, *, days: float = 30, expired: bool = False) -> dict[str, Any]:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        return {
            "name": name, "size_in_bytes": 5000, "expired": expired, "expires_at": f"{end:%Y-%m-%dT%H:%M:%SZ}",
            "workflow_run": {"head_sha": sha},
        }  # fmt: skip

    github.artifacts = [
        artifact("backend-2.0", OLD), artifact("backend-2.0"), artifact("web-2.0", OLD), artifact("gone", expired=True),
        artifact("soon", days=0.5), artifact("late", days=-1),
    ]  # fmt: skip
    for name, status, said in (
        ("backend-{version}", PASS, "is there, 5.0 kB"),
        ("web-2.0", FAIL, "there are 1 of other commits"),
        ("nothing", FAIL, "has no artifact nothing"),
        ("gone", FAIL, "has expired"),
        ("late", FAIL, "expired 1 day ago"),
        ("soon", WARN, "expires in 11 hours"),
    ):
        result = await ask(github, kind="github_artifact", name=name)
        assert (result.status, said in result.message) == (status, True), result.message


@pytest.mark.parametrize(
    ("fault", "said"), [(limited, "limits requests"), (secondary, "limits requests"), (broken, "answered 502")]
)
async def test_github_that_refuses_fails(github: GitHubStandIn, fault: Any, said: str) -> None:
    for kind, end, options in (("git", "/branches/main", {}), ("github_artifact", "/artifacts", {"name": "x"})):
        github.faults = [("GET", end, fault)]
        result = await ask(github, kind=kind, **options)
        assert (result.status, said in result.message) == (FAIL, True), result.message
        assert result.hint


async def test_github_that_hangs_or_does_not_know_us_fails(github: GitHubStandIn) -> None:
    for kind, end, options in (("git", "/branches/main", {}), ("github_artifact", "/artifacts", {"name": "x"})):
        github.faults = [("GET", end, "hang")]
        result = await ask(github, kind=kind, timeout="500ms", **options)
        assert (result.status, "within 0.5 s" in result.message) == (FAIL, True), result.message
    result = await ask(github, token="${BAD}")
    assert (result.status, "(401): Bad credentials" in result.message) == (FAIL, True), result.message
    assert "ghp_" not in result.message


@pytest.mark.parametrize("garbage", ["", "[]", "{}", "<html>", '{"artifacts": 7}', '{"artifacts": [7, {}]}'])
async def test_garbage_fails(garbage: str) -> None:
    async with saying(page(garbage)) as port:
        options = {"repository": "a/b", "api": f"http://127.0.0.1:{port}"}
        assert (await look("git", context(commit=NEW), ci=True, **options)).status is FAIL
        assert (await look("github_artifact", context(commit=NEW), name="x", **options)).status is FAIL


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("git", {}),
        ("git", {"repository": "a/b", "remote": "x"}),
        ("git", {"remote": "x", "ci": True}),
        ("git", {"remote": "--upload-pack=touch /tmp/x"}),
        ("git", {"repository": "a/b", "branch": "-x"}),
        ("git", {"repository": "a"}),
        ("github_artifact", {"name": "x"}),
        ("github_artifact", {"repository": "a/b"}),
    ],
)
def test_impossible_options_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS[kind].model_validate(options)
