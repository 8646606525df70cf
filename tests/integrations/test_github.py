# SPDX-License-Identifier: Apache-2.0
"""Incidents, deployments and statuses on GitHub, against a stand-in that holds each request to its description."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import structs

from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.notes import Note
from surefoot.core.status import Status
from surefoot.core.targets import GitHubAccess, GitHubIssue, GitHubStatus, Moment
from surefoot.integrations import http
from surefoot.store.memory import MemoryStore
from surefoot.store.protocol import LogLine, Submission
from tests.integrations import telling as t
from tests.store import journal as j
from tests.support import github as stand_ins
from tests.support.github import GitHubStandIn, github_stand_in

LABELS = ("production-incident", "production-rollback")


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with github_stand_in() as stand_in:
        yield stand_in
        assert stand_in.wrong == []


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def access(github: GitHubStandIn) -> GitHubAccess:
    return GitHubAccess(github.repository, github.url, token="${GITHUB_TOKEN}")


def issue(github: GitHubStandIn, **more: Any) -> GitHubIssue:
    given: dict[str, Any] = {
        "labels": LABELS, "assignees": ("oncall-sre",), "on": (Moment.ROLLED_BACK, Moment.STRANDED),
        "runbook": "https://runbooks.invalid/rollback", **more,
    }  # fmt: skip
    return GitHubIssue("github-issue", access(github), **given)


def environ(github: GitHubStandIn) -> dict[str, str]:
    return {"GITHUB_TOKEN": github.token}


async def test_a_rollback_opens_an_issue_with_all_that_the_on_call_needs(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    deployment = t.broken(store, issue(github))
    await t.told(store, environ(github))
    (made,) = github.issues
    assert [label["name"] for label in made["labels"]] == list(LABELS)
    assert [person["login"] for person in made["assignees"]] == ["oncall-sre"]
    assert made["title"] == "production: paws360 2.0 failed and was put back (step activate on web-2)"
    for needed in (
        "<!-- surefoot:store-1:production-1 -->", "https://github.invalid/acme/paws360/actions/runs/42", "`2.0`",
        t.COMMIT, "f" * 40, "Ann", "Bob", "Add a page", "`activate`", "`web-2`", "SF-STEP-FAILED", "look at the unit",
        "tried step activate 3 times", "undid step activate", "it is healthy", "## Timeline", "production-runner-01",
        "https://runbooks.invalid/rollback", "surefoot logs production-1", "surefoot deploy production VERSION",
        "line 59", "line 10 ",
    ):  # fmt: skip
        assert needed in made["body"], needed
    assert "line 9 " not in made["body"]
    (delivered,) = t.deliveries(store, deployment)
    assert (delivered.what, delivered.reference, delivered.by) == ("opened an issue", "1", "a")
    assert delivered.where == made["html_url"]


async def test_text_from_logs_and_commits_calls_nobody_and_breaks_nothing(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    t.broken(store, issue(github))
    await t.told(store, environ(github))
    outside_of_code = "".join(github.issues[0]["body"].split("````")[::2])
    prose = "".join(outside_of_code.split("```")[::2])
    assert "@ann" not in prose and "@not" not in prose and "@someone" not in prose
    assert "<login>" not in prose


async def test_an_incident_of_a_huge_log_fits_into_an_issue(github: GitHubStandIn, store: MemoryStore) -> None:
    deployment = t.submit(store, issue(github))
    grant = j.claim(store, deployment)
    store.append_log(deployment, [LogLine("x" * 8000) for _ in range(200)])
    for _ in range(400):
        j.append(store, deployment, grant, ev.HandedOver("again"), release=True)
        grant = j.claim(store, deployment)
    j.append(store, deployment, grant, ev.UndoStarted(t.BROKE), ev.Finished(Status.STRANDED, t.BROKE), release=True)
    await t.told(store, environ(github))
    assert len(github.issues[0]["body"]) < 65536
    assert "entries are left out" in github.issues[0]["body"]


async def test_a_stranded_story_is_told_in_one_issue_and_closed_when_it_is_repaired(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    deployment = t.broken(store, issue(github), end=Status.STRANDED)
    await t.told(store, environ(github))
    assert "surefoot resolve production-1 --reason TEXT" in github.issues[0]["body"]
    assert "web-1 runs 2.0, web-2 runs 1.9" in github.issues[0]["body"]
    t.resolved(store, deployment)
    await t.told(store, environ(github))
    (made,) = github.issues
    assert made["state"] == "closed" and made["state_reason"] == "completed"
    texts = [comment["body"] for comment in github.comments[1]]
    assert len(texts) == 4
    assert "web-1 answers 500" in texts[1] and "runs 1.9" in texts[3]


async def test_a_success_opens_no_issue(github: GitHubStandIn, store: MemoryStore) -> None:
    deployment = t.submit(store, issue(github))
    j.finish(store, deployment, j.claim(store, deployment))
    await t.told(store, environ(github))
    assert github.requests == []


async def test_a_preflight_that_refused_is_an_incident_where_that_is_wanted(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    deployment = t.submit(store, issue(github, on=(Moment.FAILED,)))
    grant = j.claim(store, deployment)
    refused = Failure(Code.PREFLIGHT_FAILED, "image acme/backend:2.0 does not exist", hint="build it")
    j.append(store, deployment, grant, ev.PreflightFailed(refused))
    j.append(store, deployment, grant, ev.Finished(Status.FAILED, refused), release=True)
    await t.told(store, environ(github))
    (made,) = github.issues
    assert "was refused before anything was touched" in made["title"]
    assert "touched no host" in made["body"] and "build it" in made["body"]


# -- faults ------------------------------------------------------------------------------------------------------


def as_it_is(github: GitHubStandIn) -> None:
    """Nothing that was told came twice, and all of it came."""
    (made,) = github.issues
    assert made["state"] == "closed"
    marks = [comment["body"].splitlines()[0] for comment in github.comments[1]]
    assert len(marks) == len(set(marks)) == 4


FAULTS: dict[str, str | Callable[[], Any]] = {
    "rate limit": stand_ins.limited,
    "secondary limit": stand_ins.secondary,
    "bad gateway": stand_ins.broken,
    "no answer": "hang",
    "lost answer": "lose",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", [("POST", "/issues"), ("POST", "/comments"), ("PATCH", "/1"), ("GET", "/issues")])
async def test_a_fault_of_github_is_overcome_and_nothing_comes_twice(
    fault: str, where: tuple[str, str], github: GitHubStandIn, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.5)
    github.faults.append((*where, FAULTS[fault]))
    deployment = t.broken(store, issue(github), end=Status.STRANDED)
    t.resolved(store, deployment)
    before = store.summary(deployment)
    await t.told(store, environ(github))
    as_it_is(github)
    assert github.faults == []
    failed = t.failures(store, deployment)
    assert [(f.failure.code, f.given_up) for f in failed] == [(Code.DELIVERY_FAILED, False)] or (
        (fault, where[0]) == ("lost answer", "GET") and failed == []  # a GET is asked again at once
    )
    assert (store.summary(deployment).status, store.summary(deployment).reason) == (before.status, before.reason)


async def test_a_rate_limit_is_waited_out_before_github_is_asked_again(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    github.faults.append(("GET", "/issues", stand_ins.secondary))
    t.broken(store, issue(github))
    await t.courier(store, environ(github)).finish(0.5)
    assert len(github.requests) == 1
    (waiting,) = store.deliveries(within=60.0)
    assert waiting.due_in > 0


async def test_many_agents_at_once_open_one_issue(github: GitHubStandIn, store: MemoryStore) -> None:
    t.broken(store, issue(github))
    await asyncio.gather(*(t.courier(store, environ(github), agent=f"a{n}").finish(30.0) for n in range(5)))
    assert len(github.issues) == 1
    assert store.deliveries(within=1e9) == []


async def test_an_agent_that_dies_in_mid_delivery_leaves_it_to_the_next(
    github: GitHubStandIn, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surefoot.agent.courier.HOLD", 0.5)
    github.faults.append(("POST", "/issues", "lose"))
    t.broken(store, issue(github))
    dying = asyncio.create_task(t.courier(store, environ(github)).finish(30.0))
    while not github.issues:
        await asyncio.sleep(0.01)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await t.told(store, environ(github))
    assert len(github.issues) == 1


async def test_who_can_not_be_assigned_is_mentioned(github: GitHubStandIn, store: MemoryStore) -> None:
    deployment = t.broken(store, issue(github, assignees=("nobody-here",)))
    await t.told(store, environ(github))
    assert github.issues[0]["assignees"] == []
    assert "@nobody-here" in github.issues[0]["body"]
    assert "assign" in t.deliveries(store, deployment)[0].what


async def test_a_wrong_token_is_told_of_and_tried_again_with_the_right_one(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    deployment = t.broken(store, issue(github))
    notes: list[Note] = []
    await t.courier(store, {"GITHUB_TOKEN": "ghp_wrong-and-secret"}, notes=notes).finish(2.0)
    (failed,) = t.failures(store, deployment)
    assert failed.failure.code is Code.DELIVERY_REFUSED and "token is not valid" in failed.failure.hint
    await t.told(store, environ(github))
    assert len(github.issues) == 1
    assert "ghp_wrong-and-secret" not in repr(store.journal(deployment)) + repr(notes)


async def test_a_token_that_an_agent_lacks_is_left_to_others_first(github: GitHubStandIn, store: MemoryStore) -> None:
    deployment = t.broken(store, issue(github))
    without = t.courier(store, {}, agent="without")
    rounds = asyncio.create_task(without.run())
    await asyncio.sleep(0.2)
    assert t.failures(store, deployment) == []
    await t.told(store, environ(github))
    rounds.cancel()
    await asyncio.gather(rounds, return_exceptions=True)
    await without.close()
    assert t.deliveries(store, deployment)[0].by == "a"


async def test_what_can_not_be_told_for_a_day_is_given_up_and_the_journal_says_so(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000.0]
    store = MemoryStore(clock=lambda: now[0])
    deployment = t.broken(store, issue(github))
    now[0] += 24 * 3600
    await t.told(store, {"GITHUB_TOKEN": "wrong"})
    (failed,) = t.failures(store, deployment)
    assert failed.given_up
    assert store.summary(deployment).status is Status.ROLLED_BACK


# -- deployments and statuses ------------------------------------------------------------------------------------


async def test_a_deployment_is_shown_on_github_from_the_queue_to_its_end(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    t.broken(store, GitHubStatus("github-status", access(github)))
    await t.told(store, environ(github))
    (made,) = github.deployments
    assert (made["sha"], made["environment"], made["task"]) == (t.COMMIT, "production", "deploy")
    assert [status["state"] for status in github.statuses[1]] == ["queued", "in_progress", "failure"]
    assert all(status["log_url"] == t.ORIGIN.run_url for status in github.statuses[1])
    assert [status["state"] for status in github.commit_statuses] == ["pending", "pending", "failure"]
    assert {status["context"] for status in github.commit_statuses} == {"surefoot/production"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_makes_no_second_github_deployment(
    fault: str, github: GitHubStandIn, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.5)
    github.faults.append(("POST", "/deployments", FAULTS[fault]))
    t.broken(store, GitHubStatus("github-status", access(github)))
    await t.told(store, environ(github))
    assert len(github.deployments) == 1
    assert github.statuses[1][-1]["state"] == "failure"


async def test_a_commit_that_is_not_known_is_no_failure(github: GitHubStandIn, store: MemoryStore) -> None:
    plan = structs.replace(t.PLAN, targets=(GitHubStatus("github-status", access(github)),))
    store.submit(Submission("production", "1.0", plan))
    await t.told(store, environ(github))
    assert github.requests == []


async def test_a_github_app_opens_the_repository(store: MemoryStore) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip
    with github_stand_in(app_id="12345", app_public_key=public) as github:
        app = GitHubAccess(github.repository, github.url, app_id="12345", private_key="${APP_KEY}")
        deployment = t.broken(store, GitHubIssue("github-issue", app, on=(Moment.ROLLED_BACK,)))
        await t.courier(store, {"APP_KEY": "no key"}).finish(2.0)
        assert "private key" in t.failures(store, deployment)[0].failure.message
        await t.told(store, {"APP_KEY": pem})
        assert len(github.issues) == 1
        assert github.wrong == []
