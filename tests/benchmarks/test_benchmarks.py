# SPDX-License-Identifier: Apache-2.0
"""Each benchmark measures what it says and tells it; how long anything takes is not for tests to judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cancel, checks, claim, report, scrape, startup, takeover_freeze, takeover_kill, throughput
from benchmarks.__main__ import ROWS
from benchmarks.report import Figure


def figure(limit: float | None, *, at_least: bool = False) -> list[Figure]:
    return [Figure("it", 2.0, limit=limit, at_least=at_least, samples=(1.0, 3.0))]


@pytest.mark.parametrize(
    ("limit", "at_least", "code"),
    [(2.0, False, 0), (1.9, False, 1), (2.0, True, 0), (2.1, True, 1), (None, False, 0)],
)
def test_a_missed_limit_is_told_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], limit: float | None, at_least: bool, code: int
) -> None:
    rows = {"row": ("what", lambda _: figure(limit, at_least=at_least))}
    assert report.run(rows, []) == code
    assert ("MISSED" in capsys.readouterr().out) == bool(code)
    assert report.run(rows, ["row", "--json"]) == code
    (told,) = json.loads(capsys.readouterr().out)["rows"]
    assert told["figures"][0] | {"met": not code, "p99": 3.0, "p50": 1.0, "max": 3.0, "runs": 2} == told["figures"][0]


def test_a_row_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        report.run(ROWS, ["no-such-row"])
    assert ended.value.code == 2


def test_percentiles_are_by_nearest_rank() -> None:
    assert report.percentile(range(1, 31), 99) == 30
    assert report.percentile(range(1, 201), 99) == 198
    assert report.percentile([5.0], 50) == 5.0


def test_a_kill_is_measured_to_the_next_attempt_on_another_agent() -> None:
    takeovers, deaths = takeover_kill.measure_on("sqlite", 1)
    assert 0 < takeovers[0] < 30 and 0 < deaths[0] < 30


@pytest.mark.parametrize("fault", [takeover_freeze.freeze, takeover_freeze.silence, takeover_freeze.break_off])
def test_a_freeze_and_a_cut_line_are_measured(fault: takeover_freeze.Fault) -> None:
    (found,) = takeover_freeze.measure_fault("postgres", fault, 1, ttl=1.5)
    assert 0 < found.began < 30 and 0 < found.gone < 30


def test_a_cancel_is_measured_to_the_last_process() -> None:
    called, requested = cancel.measure_on("sqlite", 1)
    assert 0 < requested[0] < called[0] < 30


def test_start_up_is_measured_beside_ansible() -> None:
    assert [found.unit for found in startup.measure(1)] == ["x", "s"] * 3


def test_rounds_of_checks_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "COUNT", 30)
    monkeypatch.setattr(checks, "HANGING", 10)
    well, cpu, some = checks.measure(1)
    assert len(well.samples) == len(cpu.samples) == 1
    assert some.value >= checks.TIMEOUT


@pytest.mark.parametrize("store", ["postgres", "sqlite"])
def test_claims_are_measured_with_a_history(store: str) -> None:
    short, long = claim.measure_on(store, 2, 2000)
    assert len(short) == len(long) == 2


def test_scrapes_are_measured_with_a_history() -> None:
    scrapes, start = scrape.measure_on("sqlite", 2, 500)
    assert len(scrapes) == 2 and 0 < min(scrapes) < start


def test_throughput_is_measured_and_overlaps_are_seen() -> None:
    rate, latencies, wrong = throughput.measure_once(2, 3, 6)
    assert rate > 0 and len(latencies) == 6 and wrong == 0


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["a begin", "a end", "b begin", "b end"], 0),
        (["a begin", "b begin", "a end", "b end"], 2),
        (["a begin", "a begin", "a end"], 2),
    ],
)
def test_overlaps_are_seen_in_what_steps_wrote(tmp_path: Path, lines: list[str], wrong: int) -> None:
    path = tmp_path / "env"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert throughput.overlaps_in(path) == wrong
