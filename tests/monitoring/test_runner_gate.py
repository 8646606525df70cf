# SPDX-License-Identifier: Apache-2.0
"""The gate of runners against a real Prometheus, and without one."""

from __future__ import annotations

from pathlib import Path

from surefoot.agent.machine import Limits
from surefoot.agent.runner_gate import RunnerGate
from surefoot.core.notes import Note
from tests.support.prometheus import prometheus
from tests.support.servers import free_port

RULES = """\
groups:
  - name: test
    interval: 200ms
    rules:
      - {record: runner_status, expr: vector(1), labels: {runner: runner-01}}
      - {record: runner_memory_usage_percent, expr: vector(96.4), labels: {runner: runner-01}}
      - {record: runner_cpu_usage_percent, expr: vector(97), labels: {runner: runner-01}}
      - {record: runner_status, expr: vector(0), labels: {runner: runner-02}}
      - {record: runner_status, expr: vector(1), labels: {runner: 'od"d'}}
      - {record: evaluated, expr: vector(1)}
"""


async def test_a_runner_is_judged_by_what_a_real_prometheus_says(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    config = {"global": {"evaluation_interval": "200ms"}, "rule_files": ["rules.yml"]}
    notes: list[Note] = []
    with prometheus(tmp_path, config, measured="evaluated") as server:
        said = {}
        for runner in ("runner-01", "runner-02", 'od"d', "unknown"):
            gate = RunnerGate(f"{server.url}/", runner, Limits(memory=90.0), notes.append)
            assert gate.reason() == ""
            await gate.ask()
            said[runner] = gate.reason()
    assert said == {
        "runner-01": "runner_memory_usage_percent 96 % > 90 %",
        "runner-02": "runner_status is 0",
        'od"d': "",
        "unknown": "",
    }
    assert notes == []


async def test_a_prometheus_that_is_down_decides_nothing_and_is_told_of_once() -> None:
    notes: list[Note] = []
    gate = RunnerGate(f"http://127.0.0.1:{free_port()}", "runner-01", Limits(), notes.append)
    for _ in range(3):
        await gate.ask()
    assert gate.reason() == ""
    assert len(notes) == 1 and "this agent's own measurements count" in notes[0].text
