# SPDX-License-Identifier: Apache-2.0
"""What drill.yml may say of a staging, which drills are let in there, and that both locks must be open. Nothing is
deployed here: see tests/e2e/test_drills_staging.py.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from surefoot.core.errors import Code, ConfigError, RefusedError, SurefootError, UsageError
from surefoot.drills.drill import Drill, Finding, Measure, Portable, Result
from surefoot.drills.errors import DrillError
from surefoot.drills.operator import filled
from surefoot.drills.report import Outcome, document, junit, markdown
from surefoot.drills.scenarios import DRILLS, find
from surefoot.drills.staging import examine
from surefoot.drills.staging.faults import Faults
from surefoot.drills.staging.locks import LAB_ONLY, chosen, unlock
from surefoot.drills.staging.settings import FAULTS, Fault, Settings, load

SECTION = {"environment": "staging", "versions": ["1.4.1", "1.4.2"], "runs": {"url": "http://{host}/", "key": "v"}}
KILL = {"kill": {"make": "true", "mend": "true"}}


def project(folder: Path, **changes: Any) -> Path:
    (folder / "surefoot.yml").write_text("project: p")
    section = {key: value for key, value in {**SECTION, **changes}.items() if value is not ...}
    (folder / "drill.yml").write_text(yaml.safe_dump({"staging": section}))
    return folder


# -- drill.yml ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"environment": ...}, "lacks environment"),
        ({"environment": 3}, "staging.environment: must be text"),
        ({"environment": " "}, "staging.environment: must be text"),
        ({"versions": ...}, "staging.versions: must be a list of texts"),
        ({"versions": [1.4, 1.5]}, "staging.versions: must be a list of texts"),
        ({"versions": ["1.4", "1.4"]}, "at least two different ones"),
        ({"versions": ["1.4", "1; reboot"]}, "staging.versions: .* holds"),
        ({"versions": ["1.4", "../../etc"]}, "staging.versions: "),
        ({"versions": ["1.4", ""]}, "staging.versions: the version is empty"),
        ({"nonsense": 1}, "staging.nonsense: there is no such key"),
        ({1: 1}, "staging.1: there is no such key"),
        ({"runs": ...}, "staging.runs: needs url and key"),
        ({"runs": {"url": "http://{host}/"}}, "staging.runs: needs url and key"),
        ({"hosts": ["web-01"]}, "staging.hosts: must map"),
        ({"hosts": {"web-01": "10.0.0.1/../.."}}, "is no name or address"),
        ({"hosts": {"web-01": "$(reboot)"}}, "is no name or address"),
        ({"hosts": {"web 01": "10.0.0.1"}}, "is no name or address"),
        ({"hosts": {"web-01": 10}}, "is no name or address"),
        ({"faults": ["kill"]}, "staging.faults: must be a mapping"),
        ({"faults": {"explode": {"make": "a", "mend": "b"}}}, "staging.faults.explode: there is no such fault"),
        ({"faults": {"kill": "pkill"}}, "staging.faults.kill: must have make and mend"),
        ({"faults": {"kill": {"make": "a"}}}, "staging.faults.kill.mend: must be a command"),
        ({"faults": {"kill": {"make": " ", "mend": "b"}}}, "staging.faults.kill.make: must be a command"),
        ({"faults": {"kill": {"make": "a\0b", "mend": "b"}}}, "staging.faults.kill.make: must be a command"),
        ({"faults": {"kill": {"make": "a", "mend": "b", "wait": "1s"}}}, "and nothing else"),
        ({"break": "a"}, "staging.mend: must be a command"),
        ({"mend": "a"}, "staging.break: must be a command"),
        ({"patience": 5}, "staging.patience: "),
        ({"patience": "0s"}, "staging.patience: must be more than nothing"),
        ({"takeover_within": "soon"}, "staging.takeover_within: "),
        ({"customer": 3}, "staging.customer: must be text"),
        ({"middle": []}, "staging.middle: must be text"),
    ],
)
def test_a_wrong_section_is_refused_with_a_sentence_and_a_hint(
    tmp_path: Path, changes: dict[Any, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(project(tmp_path, **{str(key): value for key, value in changes.items()}))
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_section_needs_nothing_of_the_lab_and_takes_from_it_what_it_does_not_say(tmp_path: Path) -> None:
    project(tmp_path, runs=...)
    whole = yaml.safe_load((tmp_path / "drill.yml").read_text())
    lab = {"runs": {"url": "http://{address}/v", "key": "v"}, "customer": "http://{address}/"}
    (tmp_path / "drill.yml").write_text(yaml.safe_dump({**whole, **lab}))
    settings = load(tmp_path)
    assert settings is not None
    assert (settings.version_url, settings.customer) == ("http://{address}/v", "http://{address}/")
    whole["staging"]["customer"] = None
    (tmp_path / "drill.yml").write_text(yaml.safe_dump({**whole, **lab}))
    settings = load(tmp_path)
    assert settings is not None and settings.customer is None


def test_the_examples_section_is_right_and_gives_most_drills_what_they_need() -> None:
    settings = load(Path(__file__).parents[2] / "examples" / "paws360")
    assert settings is not None
    playable, out = chosen(DRILLS, (), settings)
    assert {"failover-freeze", "failover-undo", "rollback", "cancel"} <= {drill.name for drill in playable}
    assert {"failover-power-off", "partition", "stranded", "concurrency-20"} <= {one.name for one in out}


# -- the locks ---------------------------------------------------------------------------------------------------------


def never(_: Settings) -> str:
    raise AssertionError("nobody is asked who has said it already, or named another environment")


def test_both_must_name_the_environment(tmp_path: Path) -> None:
    project(tmp_path)
    assert unlock(tmp_path, "staging", "staging", never).environment == "staging"
    assert unlock(tmp_path, "staging", None, lambda _: "staging").environment == "staging"


@pytest.mark.parametrize(
    ("against", "confirmed", "typed", "says"),
    [
        ("staging", None, None, "must be confirmed"),
        ("staging", "production", None, "'production' is not the environment"),
        ("staging", "", None, "'' is not the environment"),
        ("staging", "Staging", None, "'Staging' is not the environment"),
        ("staging", None, "", "'' is not the environment"),
        ("staging", None, "yes", "'yes' is not the environment"),
        ("production", "production", None, "lets staging be drilled, not production"),
        ("production", "staging", None, "lets staging be drilled, not production"),
        ("staging ", "staging ", None, "lets staging be drilled"),
    ],
)
def test_one_lock_is_not_enough(
    tmp_path: Path, against: str, confirmed: str | None, typed: str | None, says: str
) -> None:
    project(tmp_path)
    ask = (lambda _: typed) if typed is not None else None
    with pytest.raises(UsageError, match=says) as caught:
        unlock(tmp_path, against, confirmed, ask)
    assert "staging" in caught.value.hint


def test_a_project_that_lets_nothing_be_drilled_is_refused_with_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "surefoot.yml").write_text("project: p")
    (tmp_path / "drill.yml").write_text("environment: staging\n")
    with pytest.raises(ConfigError, match="names no environment") as caught:
        unlock(tmp_path, "staging", "staging", never)
    assert "environment: staging" in caught.value.hint


# -- which -------------------------------------------------------------------------------------------------------------


def settings(folder: Path, **changes: Any) -> Settings:
    found = load(project(folder, **changes))
    assert found is not None
    return found


def test_of_a_group_those_are_played_that_can_be_and_the_others_are_named(tmp_path: Path) -> None:
    playable, out = chosen(find(("failover",)), ("failover",), settings(tmp_path, faults=KILL))
    assert [drill.name for drill in playable] == ["failover-kill", "failover-kill-before"]
    assert {one.name: one.reason for one in out}["failover-stop"].startswith("needs faults.stop")
    assert {one.name: one.reason for one in out}["failover-undo"].startswith("needs break and mend")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("failover-stop", "needs faults.stop"),
        ("partition", "needs faults.partition"),
        ("rollback", "needs break and mend"),
        *((drill.name, LAB_ONLY) for drill in DRILLS if not isinstance(drill, Portable)),
    ],
)
def test_one_that_can_not_be_played_is_refused_by_its_name(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=f"{name} {says}") as caught:
        chosen(find((name, "cancel")), (name, "cancel"), settings(tmp_path, faults=KILL))
    assert caught.value.hint


def test_a_load_is_played_only_if_it_is_named_itself(tmp_path: Path) -> None:
    ground = settings(tmp_path)
    assert [d.name for d in chosen(find(("concurrency",)), ("concurrency",), ground)[0]] == ["concurrency-2"]
    assert [d.name for d in chosen(find(("concurrency-20",)), ("concurrency-20",), ground)[0]] == ["concurrency-20"]


def test_drills_need_only_what_drill_yml_can_say() -> None:
    needed = {need for drill in DRILLS if isinstance(drill, Portable) for need in drill.needs}
    assert needed == {*FAULTS, "break"}


# -- in order ----------------------------------------------------------------------------------------------------------

ROW = {
    "name": "staging",
    "current_version": "1.0",
    "locked_by": None,
    "frozen": None,
    "running": None,
    "queue": [],
}


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"locked_by": "staging-3"}, Code.LOCKED, "stranded by staging-3"),
        ({"frozen": {"by": "ann", "reason": "fair"}}, Code.FROZEN, "frozen by ann: fair"),
        ({"running": "staging-3"}, Code.DRILL, "staging-3 goes before"),
        ({"queue": ["staging-4", "staging-5"]}, Code.DRILL, "staging-4, staging-5 go before"),
        ({"current_version": None}, Code.DRILL, "nothing was deployed"),
    ],
)
def test_what_is_not_idle_is_refused(changes: dict[str, Any], code: Code, says: str) -> None:
    assert examine.idle(ROW) == "1.0"
    with pytest.raises(RefusedError, match=says) as caught:
        examine.idle({**ROW, **changes})
    assert (caught.value.code, caught.value.exit_code, bool(caught.value.hint)) == (code, 3, True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gates": ["1 approval of sre is missing"]}, "would wait: 1 approval of sre"),
        ({"refused": {"code": "SF-NOT-PROMOTED", "message": "not in test", "hint": "deploy"}}, "refused: not in test"),
    ],
)
def test_gates_that_would_be_closed_are_said(changes: dict[str, Any], says: str) -> None:
    plan = {"environment": "staging", "version": "1.4.1", "gates": [], "refused": None}
    examine.open_gates(plan)
    with pytest.raises(RefusedError, match=says):
        examine.open_gates({**plan, **changes})


# -- faults ------------------------------------------------------------------------------------------------------------


def test_values_are_words_to_the_shell_and_other_braces_are_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    faults = Faults(tmp_path, said.append)
    out = tmp_path / "out"
    make = f"printf '%s\\n' {{agent}} | awk '{{print $1}}' >{out}; printf %s ${{HOME:+home}} >>{out}"
    faults.make("kill", Fault(make, "true"), {"agent": "a$(touch x) ; reboot"})
    assert out.read_text() == "a$(touch\nhome"
    assert filled("{agent} {other} {host}", agent="a") == "a {other} {host}"
    assert faults.mend_all() == []


def test_both_commands_are_said_before_the_fault_is_made(tmp_path: Path) -> None:
    said: list[str] = []
    faults = Faults(tmp_path, said.append)
    faults.make("kill", Fault(f"echo '{'x' * 3}' >{tmp_path / 'made'}", "echo mended"), {})
    assert any("made by" in line for line in said[:2]) and any("mended by: echo mended" in line for line in said[:2])
    assert faults.mend_all() == [] and faults.mend_all() == []


def test_a_fault_that_is_still_being_made_is_ended_before_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surefoot.drills.staging.faults.COMMAND_WITHIN", 0.2)
    monkeypatch.setattr("surefoot.drills.staging.faults.GRACE", 0.2)
    faults = Faults(tmp_path, lambda _: None)
    late = tmp_path / "late"
    with pytest.raises(DrillError, match="did not end"):
        faults.make("kill", Fault(f"(sleep 1; touch {late}) & wait", "true"), {})
    monkeypatch.setattr("surefoot.drills.staging.faults.COMMAND_WITHIN", 60.0)
    assert faults.mend_all() == []
    time.sleep(1.5)
    assert not late.exists()


def test_a_fault_is_mended_though_what_commands_say_can_not_be_kept(tmp_path: Path) -> None:
    folder, mended = tmp_path / "kept", tmp_path / "mended"
    folder.mkdir()
    faults = Faults(folder, lambda _: None)
    faults.make("kill", Fault("true", f"touch {mended}"), {})
    shutil.rmtree(folder)
    assert faults.mend_all() == []
    assert mended.exists()


def test_what_can_not_be_mended_is_tried_again_and_told_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surefoot.drills.staging.faults.MEND_AGAIN", 0.01)
    faults = Faults(tmp_path, lambda _: None)
    faults.make("kill", Fault("true", "echo no route >&2; exit 255"), {})
    (left,) = faults.mend_all()
    assert "ended with 255: no route" in left and "by hand: echo no route >&2; exit 255" in left
    counter = tmp_path / "tries"
    faults = Faults(tmp_path, lambda _: None)
    faults.make("kill", Fault("true", f"echo >>{counter}; test $(wc -l <{counter}) -ge 3"), {})
    assert faults.mend_all() == []


# -- reports -----------------------------------------------------------------------------------------------------------


def result(*findings: Finding, measures: tuple[Measure, ...] = ()) -> Result:
    drill = Drill("d", "g", "Something happens.", ("does it",), play=lambda _: None)
    return Result(drill, findings=list(findings), measures=list(measures))


NOT_JUDGED = Finding("one at a time", None, "not judged here: hosts have no black box")


def test_what_is_not_judged_is_said_in_every_report_and_never_counts_as_kept() -> None:
    assert not result(NOT_JUDGED).passed
    assert result(NOT_JUDGED, Finding("exit 0", True, "it was")).passed
    assert not result(NOT_JUDGED, Finding("exit 0", False, "it was 4")).passed
    outcome = Outcome([result(NOT_JUDGED, Finding("exit 0", True, "it was"))], "p")
    assert "| one at a time | not judged | not judged here" in markdown(outcome)
    assert "not judged here" in junit(outcome)
    assert document(outcome)["drills"][0]["findings"][0]["kept"] is None


def test_what_is_left_and_left_out_is_in_the_reports() -> None:
    good = result(Finding("exit 0", True, "it was"))
    outcome = Outcome([good], "p", "Played there.", "staging", [("partition", "needs it")], ["runner-01 is gone"])
    assert not outcome.passed
    assert "runner-01 is gone" in markdown(outcome) and "partition needs it" in markdown(outcome)
    said = document(outcome)
    assert (said["passed"], said["left"]) == (False, ["runner-01 is gone"])
    assert said["left_out"] == [{"name": "partition", "reason": "needs it"}]


def test_errors_of_drills_are_all_told_as_errors_of_ours() -> None:
    assert issubclass(DrillError, SurefootError) and DrillError("x").code is Code.DRILL
