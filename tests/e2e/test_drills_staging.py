# SPDX-License-Identifier: Apache-2.0
"""Drills against an environment that is there already, where things are in the way or go wrong: the demo's two hosts
and two agents, as somebody's staging. What goes well is in tests/lab/test_drills_against.py.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from surefoot.demo.scene import AGENTS, Scene
from tests.support import forked

#: Far more than anything here takes, on a machine that does much else.
LONG = 400.0


class Staging:
    """What a team would have: an environment that runs 1.0, and a drill.yml."""

    def __init__(self, folder: Path) -> None:
        self.scene = Scene(folder)
        patient = (
            self.scene.config.read_text().replace("within: 2s", "within: 5m").replace("timeout: 60s", "timeout: 10m")
        )
        self.scene.config.write_text(patient)
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self) -> None:
        self.scene.start_hosts()
        self.agents = {name: self.scene.start_agent(name) for name in AGENTS}
        assert self.scene.deploy("1.0").wait(LONG) == 0

    def allow(self, **more: Any) -> None:
        hosts = {host.name: f"127.0.0.1:{host.port}" for host in self.scene.hosts}
        section = {"environment": "production", "versions": ["2.0", "4.0"], "hosts": hosts, "patience": "5m", **more}
        runs = {"url": "http://{address}/version", "key": "version"}
        said = {"runs": runs, "staging": section}
        (self.scene.project / "drill.yml").write_text(yaml.safe_dump(said))

    def start(self, *words: str, confirm: str | None = "production", store: str | None = None) -> subprocess.Popen[str]:
        command = ["drill", *words, "--against", "production"]
        command += ["--project", str(self.scene.project), "--keep", str(self.scene.folder / "kept")]
        command += ["--confirm", confirm] if confirm is not None else []
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("SUREFOOT_", "GITHUB_"))}
        if store is not None:
            environ["SUREFOOT_STORE"] = store
        return forked.Surefoot(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def drill(self, *words: str, confirm: str | None = "production", store: str | None = None) -> tuple[int, str, str]:
        process = self.start(*words, confirm=confirm, store=store)
        out, err = process.communicate(timeout=LONG)
        return process.returncode, out, err

    def surefoot(self, *words: str) -> Any:
        done = forked.run([*words, "--output", "json"], capture_output=True, text=True, cwd=self.scene.project)
        return json.loads(done.stdout or "null")

    def journal(self) -> list[str]:
        return [row["id"] for row in self.surefoot("history", "production", "--limit", "100")["deployments"]]

    def runs(self) -> set[str]:
        found = set()
        for host in self.scene.hosts:
            with urllib.request.urlopen(f"http://127.0.0.1:{host.port}/version", timeout=10) as answer:
                found.add(json.loads(answer.read())["version"])
        return found

    def as_it_was(self) -> None:
        assert self.runs() == {"1.0"}
        (row,) = self.surefoot("status", "production")["environments"]
        assert (row["current_version"], row["running"], row["queue"], row["locked_by"]) == ("1.0", None, [], None)


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    made = Staging(tmp_path_factory.mktemp("staging"))
    try:
        made.begin()
        yield made
    finally:
        made.scene.end()


# -- refused before anything is touched --------------------------------------------------------------------------------


def test_without_both_locks_nothing_is_touched_and_the_hint_names_what_is_missing(staging: Staging) -> None:
    staging.allow()
    before = staging.journal()
    code, _, err = staging.drill("healthy-primary", confirm=None)
    assert (code, "hint: add --confirm production" in err) == (2, True), err
    code, _, err = staging.drill("healthy-primary", confirm="prodution")
    assert (code, "'prodution' is not the environment" in err) == (2, True), err
    staging.allow(environment="staging")
    code, _, err = staging.drill("healthy-primary")
    assert (code, "lets staging be drilled, not production" in err) == (2, True), err
    (staging.scene.project / "drill.yml").write_text("environment: production\n")
    code, _, err = staging.drill("healthy-primary")
    assert (code, "hint: add to it: staging: {environment: production" in err) == (2, True), err
    assert staging.journal() == before


def test_what_an_environment_must_be_and_is_not_is_said_and_nothing_is_touched(
    staging: Staging, tmp_path: Path
) -> None:
    before = staging.journal()
    staging.allow()
    staging.surefoot("freeze", "production", "--reason", "the fair")
    code, _, err = staging.drill("healthy-primary")
    assert (code, "SF-FROZEN" in err, "the fair" in err) == (3, True, True), err
    staging.surefoot("unfreeze", "production")

    staging.allow(hosts={"web-01": "127.0.0.1:9", "web-02": f"127.0.0.1:{staging.scene.hosts[1].port}"})
    code, _, err = staging.drill("healthy-primary")
    assert (code, "web-01 does not say which version runs there" in err) == (3, True), err

    staging.allow(runs={"url": "http://{address}/health", "key": "status"})
    code, _, err = staging.drill("healthy-primary")
    assert (code, "web-01 runs UP" in err, "journal says 1.0" in err) == (3, True, True), err

    staging.allow(hosts={"web-09": "10.0.0.9"})
    code, _, err = staging.drill("healthy-primary")
    assert (code, "web-09 is not in the inventory" in err, "web-01, web-02" in err) == (2, True, True), err

    staging.allow(middle="nonsense")
    code, _, err = staging.drill("healthy-primary")
    assert (code, "there are: stage, activate" in err) == (2, True), err

    staging.allow()
    code, _, err = staging.drill("healthy-primary", store="postgresql://nobody@127.0.0.1:9/none")
    assert (code, "error[SF-STORE" in err) == (9, True), err
    code, _, err = staging.drill("healthy-primary", store=str(tmp_path / "empty.db"))
    assert (code, "nothing was deployed to production yet" in err) == (3, True), err
    assert staging.journal() == before


def test_what_is_under_way_goes_before_a_drill(staging: Staging) -> None:
    staging.allow()
    shown = staging.surefoot("deploy", "production", "1.0", "--at", "1h", "--detach")
    try:
        code, _, err = staging.drill("healthy-primary")
        assert (code, f"{shown['id']} goes before a drill" in err) == (3, True), err
    finally:
        staging.surefoot("cancel", shown["id"])
    staging.as_it_was()


def test_a_drill_whose_fault_is_not_given_is_refused_by_name_and_left_out_of_a_group(staging: Staging) -> None:
    staging.allow()
    code, _, err = staging.drill("failover-kill")
    assert (code, "hint: staging: {faults: {kill: {make: COMMAND" in err) == (2, True), err
    code, _, err = staging.drill("store-restart")
    assert (code, "store-restart can be played in the lab only" in err) == (2, True), err
    code, _, err = staging.drill("failover")
    assert (code, "none of these drills" in err) == (2, True), err
    code, _, err = staging.drill("rollback")
    assert (code, "rollback needs break and mend" in err) == (2, True), err


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_version_that_does_not_exist_fails_the_drill_and_leaves_no_trace(staging: Staging) -> None:
    staging.allow(versions=["9.9", "9.8"])
    code, out, err = staging.drill("healthy-primary", "--output", "json")
    assert code == 1, err
    said = json.loads(out)
    assert said["left"] == []
    found = {finding["promise"]: finding["kept"] for finding in said["drills"][0]["findings"]}
    assert (found["exit 0"], found["all or nothing"], found["customers"]) == (False, False, None)
    staging.as_it_was()


def test_what_is_left_is_told_aloud_no_drill_comes_after_it_and_what_others_deployed_is_not_taken_back(
    staging: Staging, tmp_path: Path
) -> None:
    other = " ".join(map(shlex.quote, staging.scene.command("deploy", "production", "5.0", "--detach")))
    staging.allow(faults={"kill": {"make": f"{other}; echo no such runner; exit 4", "mend": "echo down; exit 3"}})
    report = tmp_path / "report.md"
    code, out, err = staging.drill("failover-kill", "cancel", "--output", "json", "--report", str(report))
    try:
        assert code == 5, err
        said = json.loads(out)
        (drill,) = said["drills"]
        assert "no such runner" in drill["error"] and "ended with 4" in drill["error"]
        assert "by hand: echo down; exit 3" in said["left"][0]
        assert "somebody else has deployed meanwhile" in said["left"][1]
        assert "production is NOT as it was before the drill" in err
        assert "surefoot rollback production --to 1.0" in report.read_text()
        end = time.monotonic() + LONG
        while staging.surefoot("status", "production")["environments"][0]["current_version"] != "5.0":
            assert time.monotonic() < end
            time.sleep(0.2)
        assert staging.runs() == {"5.0"}
    finally:
        staging.surefoot("rollback", "production", "--to", "1.0")
    staging.as_it_was()


def test_an_agent_that_is_gone_leaves_too_few_for_a_failover(staging: Staging) -> None:
    staging.allow(faults={"stop": {"make": "true", "mend": "true"}})
    staging.agents[AGENTS[1]].terminate()
    staging.agents[AGENTS[1]].wait(LONG)
    try:
        code, _, err = staging.drill("failover-stop")
        assert (code, "1 agents are online (runner-01), and 2 are needed" in err) == (3, True), err
    finally:
        staging.agents[AGENTS[1]] = staging.scene.start_agent(AGENTS[1])
