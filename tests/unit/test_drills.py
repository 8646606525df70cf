# SPDX-License-Identifier: Apache-2.0
"""Drills judge by what hosts saw: what counts as a breach, what a report says, what a project must say of itself."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from surefoot.core.errors import ConfigError, NotFoundError
from surefoot.drills import evidence, report
from surefoot.drills.drill import Drill, Finding, Measure, Result
from surefoot.drills.lab import blackbox
from surefoot.drills.lab.blackbox import Command
from surefoot.drills.project import load, stage
from surefoot.drills.report import Outcome
from surefoot.drills.scenarios import DRILLS, find

OLD, NEW = "10.0.0.1", "10.0.0.2"


def task(host: str, begin: float, end: float | None, token: int, code: int | None = 0) -> Command:
    return Command(host, begin, OLD if token == 1 else NEW, token * 1_000_000, False, end, code if end else None)


def raised(host: str, begin: float, end: float, token: int) -> Command:
    return Command(host, begin, NEW, token * 1_000_000, True, end, 0)


# -- the black box ----------------------------------------------------------------------------------------------------


def test_a_black_box_that_was_cut_off_has_a_command_without_an_end() -> None:
    lines = [
        "begin 10.5 7 10.0.0.1 3000001 task",
        "begin 11 8 10.0.0.1 - -",
        "end 12 7 137",
        "begin 12.5 9 10.0.0.2 4000000 raise",
    ]
    one, two, three = blackbox.parse("web-01", lines)
    assert (one.token, one.end, one.code, one.raises) == (3000001, 12.0, 137, False)
    assert (two.token, two.end) == (None, None)
    assert three.raises


def test_a_process_number_that_comes_again_is_another_command() -> None:
    lines = ["begin 1 7 a 1 task", "begin 5 7 a 1 task", "end 6 7 0"]
    first, second = blackbox.parse("web-01", lines)
    assert (first.end, second.end) == (None, 6.0)


def test_commands_that_are_known_to_have_been_ended_are_given_the_ends_that_they_lack() -> None:
    lines = ["begin 1 7 a 1 task", "end 2 7 0", "begin 3 7 a 2 task", "begin 4 8 a 2 task", "end 5 8 0"]
    missing = blackbox.ends(lines, 6.0).splitlines()
    *_, second, third = blackbox.parse("web-01", lines + missing)
    assert (second.end, second.code, third.end, third.code) == (6.0, blackbox.KILLED, 5.0, 0)
    assert not blackbox.ends(lines + missing, 7.0)


# -- one at a time ----------------------------------------------------------------------------------------------------


def test_a_task_of_the_old_token_after_the_new_ones_first_task_is_late() -> None:
    commands = [task("a", 1, 2, 1), raised("a", 3, 4, 2), task("a", 5, 6, 2), task("b", 7, 8, 1)]
    assert evidence.late(commands) == [commands[3]]


def test_a_task_of_the_old_token_that_still_runs_when_the_new_one_begins_is_late() -> None:
    commands = [task("a", 1, 9, 1), raised("a", 3, 4, 2), task("a", 5, 6, 2)]
    assert evidence.late(commands) == [commands[0]]


def test_what_was_refused_or_killed_is_not_late() -> None:
    commands = [task("a", 1, 5.1, 1, code=137), raised("a", 3, 4, 2), task("a", 5, 6, 2), task("a", 7, 7.1, 1, code=97)]
    assert evidence.late(commands) == []


def test_a_command_that_was_begun_late_and_killed_is_late() -> None:
    commands = [raised("a", 3, 4, 2), task("a", 5, 6, 2), task("a", 7, 8, 1, code=137)]
    assert evidence.late(commands) == [commands[2]]


def test_a_command_without_an_end_is_late_unless_its_host_lost_power() -> None:
    commands = [task("a", 1, None, 1), raised("b", 3, 4, 2), task("b", 5, 6, 2)]
    assert evidence.late(commands) == [commands[0]]
    assert evidence.late(commands, dead=["a"]) == []


def test_the_fences_of_one_token_are_one_reign() -> None:
    again = Command("a", 7, NEW, 2_000_001, True, 8, 0)
    one, two = evidence.reigns([task("a", 1, 2, 1), raised("a", 3, 4, 2), task("a", 5, 6, 2), again])
    assert (one.token, two.token) == (1, 2)
    assert (two.first, two.first_task, two.last, two.tasks) == (3, 5, 8, 1)


# -- reports ----------------------------------------------------------------------------------------------------------


def result(*findings: Finding, error: str = "", measures: tuple[Measure, ...] = ()) -> Result:
    drill = Drill("d", "g", "Something happens.", ("does it",), play=lambda _: None)
    return Result(drill, findings=list(findings), error=error, measures=list(measures))


GOOD, BAD = Finding("kept", True, "seen"), Finding("broken", False, "a | b <c>\x01")


@pytest.mark.parametrize(
    "one",
    [
        result(),
        result(GOOD, BAD),
        result(GOOD, error="LabError: it broke"),
        result(GOOD, measures=(Measure("latency", 31.0, "s", at_most=30.0),)),
    ],
    ids=["nothing judged", "a promise broken", "not played to its end", "a number too great"],
)
def test_a_drill_that_did_not_really_pass_fails_every_report(one: Result) -> None:
    assert not one.passed
    suite = ET.fromstring(report.junit(Outcome([one], "p")))
    assert int(suite.attrib["failures"]) + int(suite.attrib["errors"]) == 1
    assert "0 of 1 passed" in report.markdown(Outcome([one], "p"))
    assert report.document(Outcome([one], "p"))["passed"] is False


def test_what_shows_a_promise_is_one_line_in_every_report() -> None:
    finding = Finding("resolved", True, "12:00 ada says it is repaired\n12:01 resolved")
    assert finding.evidence == "12:00 ada says it is repaired; 12:01 resolved"


def test_a_drill_that_passed_passes_in_every_report() -> None:
    one = result(GOOD, measures=(Measure("latency", 3.0, "s", at_most=30.0),))
    suite = ET.fromstring(report.junit(Outcome([one], "p")))
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["skipped"]) == ("0", "0", "0")
    assert "1 of 1 passed" in report.markdown(Outcome([one], "p"))


def test_a_drill_that_was_repeated_has_its_spread_in_every_report() -> None:
    runs = [
        result(GOOD, measures=(Measure("latency", float(n), "s", at_most=30.0), Measure("asked", n, "requests")))
        for n in range(1, 21)
    ]
    assert [str(one) for one in report.spreads(runs)] == ["d: latency: p50 10.50, p99 20.00, max 20.00 s (20 runs)"]
    assert "| d | latency | 20 | 10.50 s | 20.00 s | 20.00 s |" in report.markdown(Outcome(runs, "p"))
    (spread,) = report.document(Outcome(runs, "p"))["repeated"]
    assert (spread["runs"], spread["p50"], spread["p99"], spread["max"]) == (20, 10.5, 20.0, 20.0)
    assert report.spreads(runs[:1]) == []


# -- which ------------------------------------------------------------------------------------------------------------


def test_drills_have_names_of_their_own_and_say_what_they_do() -> None:
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)
    assert all(drill.title.endswith(".") and drill.will for drill in DRILLS)


def test_a_group_is_all_of_its_drills_and_unknown_names_are_refused() -> None:
    assert {drill.group for drill in find(("failover",))} == {"failover"}
    assert [drill.name for drill in find(("partition", "healthy-primary"))][-1] == "partition"
    with pytest.raises(NotFoundError):
        find(("nonsense",))


# -- projects ---------------------------------------------------------------------------------------------------------

REST = '\ncustomer: "http://{address}/"\nruns: {url: "http://{address}/", key: v}\nbreak: "true"\nmend: "true"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("environment: [", "drill.yml"),
        ("- a", "mapping"),
        ("environment: p", "lacks customer"),
        ("environment: p\nnonsense: 1" + REST, "nonsense"),
        ("environment: 3" + REST, "must be a str"),
        ("environment: p" + REST.replace("key: v", "other: v"), "runs"),
    ],
)
def test_a_wrong_drill_yml_is_refused_with_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "surefoot.yml").write_text("project: p")
    (tmp_path / "drill.yml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(tmp_path)


def test_a_staged_project_has_what_is_otherwise_in_the_lab(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "surefoot.yml").write_text(
        "project: p\nincidents: {a: 1}\nenvironments: {e: {retry: {attempts: 3, delay: 30s}}}\n"
    )
    more = "config: {incidents: null, environments: {e: {retry: {delay: 1s}}}}\n"
    (source / "drill.yml").write_text("environment: e" + REST + more)
    staged = stage(load(source), tmp_path / "target")
    text = (staged.folder / "surefoot.yml").read_text()
    assert "incidents" not in text
    assert "attempts: 3" in text
    assert "delay: 1s" in text


def test_the_built_in_project_is_whole(tmp_path: Path) -> None:
    from surefoot.config.loading import load as load_config

    staged = stage(None, tmp_path / "target")
    config = load_config(staged.folder / "surefoot.yml", kinds=None)
    assert staged.environment in config.environments
    assert staged.provision is not None
    assert (staged.folder / staged.provision).exists()
