# SPDX-License-Identifier: Apache-2.0
"""The shipped CI files: valid by their vendors' schemas, without findings, and every block of shell in them runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.github import GitHubStandIn, github_stand_in

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "examples" / "paws360" / ".github" / "workflows" / "ci.yml"
APPROVE = WORKFLOW.with_name("approve.yml")
ACTION = ROOT / "action.yml"
GITLAB = ROOT / "examples" / "gitlab" / ".gitlab-ci.yml"
BIN = Path(sys.executable).parent

CONFIG = """\
project: paws360
environments:
  staging: &all
    steps: [{name: activate, run: 'test "$SUREFOOT_VERSION" != bad', undo: {run: 'true'}}]
    retry: {attempts: 1}
  production: *all
"""


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / name, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("schema", "path"),
    [("github-workflows", WORKFLOW), ("github-workflows", APPROVE), ("github-actions", ACTION), ("gitlab-ci", GITLAB)],
)
def test_it_is_valid_by_its_vendors_schema(schema: str, path: Path) -> None:
    checked = tool("check-jsonschema", "--builtin-schema", f"vendor.{schema}", path)
    assert checked.returncode == 0, checked.stdout


def test_the_schema_knows_what_queue_may_be(tmp_path: Path) -> None:
    broken = tmp_path / "ci.yml"
    broken.write_text(WORKFLOW.read_text().replace("queue: max", "queue: never"))
    assert tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", broken).returncode == 1


def test_zizmor_finds_nothing() -> None:
    audited = tool("zizmor", "--offline", "--persona=pedantic", "--no-progress", WORKFLOW, APPROVE, ACTION)
    assert audited.returncode == 0, audited.stdout


def test_production_is_deployed_to_one_at_a_time_and_never_cancelled() -> None:
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["deploy-to-production"]
    assert job["concurrency"] == {"group": "production-deployment", "cancel-in-progress": False, "queue": "max"}


# -- the shell in them -------------------------------------------------------------------------------------------


class Runner:
    """Runs blocks of shell as GitHub's runner does, in a project of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "surefoot.yml").write_text(CONFIG)
        self.output, self.summary = folder / "output", folder / "summary"
        hidden = ("GITHUB_", "SUREFOOT_", "CI_", "ACTIONS_")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        self.env |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTOR": "ann",
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_REPOSITORY": "acme/paws360",
            "GITHUB_RUN_ID": "42",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_JOB": "deploy",
            "NO_PROXY": "*",
        }

    def run(self, block: str, **env: str) -> subprocess.CompletedProcess[str]:
        call = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", block]
        return subprocess.run(
            call, cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True, timeout=120
        )

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def steps_of(job: str) -> dict[str, str]:
    """The blocks of a job by their steps' names."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"][job]["steps"]
    return {step["name"]: step["run"] for step in steps if "run" in step}


def test_every_block_is_run_by_a_test() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    assert {(job, name) for job in jobs for name in steps_of(job)} == {
        ("check", "Install Surefoot"),  # what it installs is what the other blocks run here
        ("check", "Check"),
        ("select-runner", "Select"),
        ("deploy-to-staging", "Deploy"),
        ("deploy-to-production", "Submit"),
        ("deploy-to-production", "Follow"),
    }


def test_check_and_staging_run(runner: Runner) -> None:
    assert runner.run(steps_of("check")["Check"]).returncode == 0
    deployed = runner.run(steps_of("deploy-to-staging")["Deploy"], VERSION="1.0")
    assert deployed.returncode == 0, deployed.stderr
    assert deployed.stdout.startswith("staging-1 staging 1.0: succeeded")


@pytest.mark.parametrize(("version", "code"), [("1.0", 0), ("bad", 4)])
def test_production_is_submitted_and_followed_as_one_deployment(runner: Runner, version: str, code: int) -> None:
    job = steps_of("deploy-to-production")
    submitted = runner.run(job["Submit"], VERSION=version)
    assert submitted.returncode == 0, submitted.stderr
    assert "**Deployment:** `production-1`" in runner.summary.read_text()
    followed = runner.run(job["Follow"], VERSION=version)
    assert followed.returncode == code, followed.stderr
    assert followed.stdout.startswith("production-1 ")
    summary = runner.summary.read_text()
    assert ("✅ production: paws360 1.0 was deployed" if code == 0 else "SF-STEP-FAILED") in summary
    assert "Runs on" in summary and "chosen" in summary


def test_an_sre_approves_by_a_workflow_of_its_own(runner: Runner) -> None:
    config = CONFIG.replace("staging: &all\n", "staging:\n    approvals: {required: 1, from: [sre]}\n", 1)
    config = config.replace("    steps:", "    <<: &all\n      steps:", 1).replace("    retry:", "      retry:", 1)
    (runner.folder / "surefoot.yml").write_text("groups: {sre: [cyn]}\n" + config)
    assert runner.run("surefoot deploy staging 1.0 --detach").returncode == 0
    (step,) = (step for step in yaml.safe_load(APPROVE.read_text())["jobs"]["approve"]["steps"] if "run" in step)
    env = {"DEPLOYMENT": "staging-1", "REASON": "tried it; $(exit 1)"}
    refused = runner.run(step["run"], **env)
    assert refused.returncode == 7, refused.stdout + refused.stderr
    approved = runner.run(step["run"], **env, GITHUB_ACTOR="cyn")
    assert approved.returncode == 0, approved.stderr
    events = runner.run("surefoot events staging-1").stdout
    assert "cyn" in events and "tried it; $(exit 1)" in events
    end = time.monotonic() + 60
    while "succeeded" not in runner.run("surefoot show staging-1").stdout:  # by an agent in the background
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.parametrize(("version", "code"), [("1.0", 0), ("bad", 4)])
def test_the_action_submits_and_follows(runner: Runner, version: str, code: int) -> None:
    steps = {step["name"]: step for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]}
    env = {"TO": "production", "VERSION": version, "REASON": "it's time; $(exit 1)", "TIMEOUT": "5m"}
    env |= {"SUREFOOT_CONFIG": "surefoot.yml", "PROGRAM": "surefoot"}
    submitted = runner.run(steps["Submit"]["run"], **env)
    assert submitted.returncode == 0, submitted.stderr
    assert runner.outputs() == {"deployment": "production-1"}
    followed = runner.run(steps["Follow"]["run"], **env)
    assert followed.returncode == code, followed.stderr


def test_the_jobs_of_gitlab_and_jenkins_run(runner: Runner) -> None:
    job = yaml.safe_load(GITLAB.read_text())["deploy-to-production"]
    (script,) = job["script"]
    done = runner.run(script, CI_COMMIT_SHA="1.0", CI_PIPELINE_ID="1", CI_JOB_ID="2")
    assert done.returncode == 0, done.stderr
    (script,) = re.findall(r"sh '(surefoot deploy .*)'", (ROOT / "examples" / "jenkins" / "Jenkinsfile").read_text())
    done = runner.run(script, GIT_COMMIT="2.0", BUILD_TAG="jenkins-1")
    assert done.returncode == 0 and done.stdout.startswith("production-2 "), done.stderr


# -- the runner --------------------------------------------------------------------------------------------------


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with github_stand_in() as stand_in:
        yield stand_in
        assert stand_in.wrong == []


def a_runner(number: int, role: str, status: str) -> dict[str, Any]:
    labels = [{"name": name} for name in ("self-hosted", "production", role)]
    name = f"production-runner-{number:02}"
    return {"id": number, "name": name, "os": "linux", "status": status, "busy": False, "labels": labels}


@pytest.mark.parametrize(
    ("primary", "secondary", "chosen", "why"),
    [
        ("online", "online", "primary", "production-runner-01 is online"),
        ("offline", "online", "secondary", "no primary is online, production-runner-02 is"),
        ("offline", "offline", None, "nobody knows"),
    ],
)
def test_the_primary_is_chosen_or_the_secondary_with_the_reason(
    runner: Runner, github: GitHubStandIn, primary: str, secondary: str, chosen: str | None, why: str
) -> None:
    github.runners = [a_runner(1, "primary", primary), a_runner(2, "secondary", secondary)]
    done = runner.run(steps_of("select-runner")["Select"], GITHUB_API_URL=github.url, RUNNERS_TOKEN=github.token)
    assert done.returncode == 0, done.stderr
    labels = ["self-hosted", "production", *([chosen] if chosen else [])]
    assert yaml.safe_load(runner.outputs()["labels"]) == labels
    assert why in runner.summary.read_text()
    assert github.token not in done.stdout + done.stderr


@pytest.mark.parametrize("trouble", ["no token", "no answer"])
def test_github_in_trouble_keeps_nobody_waiting_for_a_runner(
    runner: Runner, github: GitHubStandIn, trouble: str
) -> None:
    github.runners = [a_runner(1, "primary", "online")]
    if trouble == "no answer":
        github.faults += [("GET", "/runners", "hang")] * 2
    token = "" if trouble == "no token" else github.token
    started = time.monotonic()
    done = runner.run(steps_of("select-runner")["Select"], GITHUB_API_URL=github.url, RUNNERS_TOKEN=token)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 30
    assert yaml.safe_load(runner.outputs()["labels"]) == ["self-hosted", "production"]
