# SPDX-License-Identifier: Apache-2.0
"""A plan says all that a deployment needs, with every default and inheritance settled, and no secret."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from surefoot.config.freeze import freeze
from surefoot.config.loading import load
from surefoot.core.errors import Code, NotFoundError
from surefoot.core.plan import (
    Check,
    Command,
    HealthPolicy,
    OnCancel,
    Plan,
    Playbook,
    Retry,
    SecretSource,
    Step,
    VaultFile,
)

TEXT = """\
project: p
secrets: [TOKEN]
environments:
  small: {steps: [{name: s, run: 'true'}]}
  e:
    inventory: web1,
    steps:
      - name: one
        playbook: one.yml
        undo: {run: back}
        retry: {timeout: 1m}
      - name: two
        run: two
        leaves_processes: true
    retry: {attempts: 5, delay: 1s}
    preflight: [{tcp: {address: "{host}:22"}}]
    health: [{http: {url: "http://{host}/?${TOKEN}"}, name: web}]
    health_policy: {within: 10s, successes: 3}
    version_probe: {command: {run: x}}
    state_file: /x
    on_cancel: finish
    takeover_limit: 2
    fence: {path: /var/lib/fence}
"""


@pytest.fixture
def plans(tmp_path: Path) -> tuple[Plan, Plan]:
    (tmp_path / "one.yml").write_text("- hosts: all\n")
    (tmp_path / "surefoot.yml").write_text(TEXT)
    config = load(tmp_path / "surefoot.yml", kinds=None, environ={"TOKEN": "s3cr3t"})
    return freeze(config, "e"), freeze(config, "small")


def test_a_steps_retry_inherits_field_by_field(plans: tuple[Plan, Plan]) -> None:
    assert plans[0].steps == (
        Step("one", Playbook("one.yml"), Command("back"), Retry(5, 1.0, 60.0)),
        Step("two", Command("two"), None, Retry(5, 1.0, 600.0), leaves_processes=True),
    )
    assert plans[0].retry == Retry(5, 1.0, 600.0)


def test_everything_else_is_carried_over(plans: tuple[Plan, Plan]) -> None:
    plan = plans[0]
    assert (plan.project, plan.environment, plan.inventory) == ("p", "e", "web1,")
    assert plan.preflight == (Check("tcp", {"address": "{host}:22"}),)
    assert plan.health == (Check("http", {"url": "http://{host}/?${TOKEN}"}, "web"),)
    assert plan.health_policy == HealthPolicy(10.0, 10 / 6, 3)
    assert plan.version_probe == Check("command", {"run": "x"})
    assert (plan.state_file, plan.fence_path, plan.takeover_limit) == ("/x", "/var/lib/fence", 2)
    assert plan.on_cancel is OnCancel.FINISH
    assert plan.secrets == ("TOKEN",)


def test_the_defaults_are_those_of_the_core(plans: tuple[Plan, Plan]) -> None:
    assert plans[1] == Plan("p", "small", (Step("s", Command("true")),), secrets=("TOKEN",))


def test_a_plan_survives_the_journal_and_holds_no_secret(plans: tuple[Plan, Plan]) -> None:
    data = msgspec.json.encode(plans[0])
    assert msgspec.json.decode(data, type=Plan) == plans[0]
    assert b"s3cr3t" not in data


def test_an_environment_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "surefoot.yml").write_text(TEXT)
    config = load(tmp_path / "surefoot.yml", kinds=None, environ={}, files=False)
    with pytest.raises(NotFoundError) as caught:
        freeze(config, "smal")
    assert caught.value.code is Code.ENVIRONMENT_UNKNOWN


def test_passwords_and_tokens_of_checks_and_vaults_are_hidden() -> None:
    plan = Plan(
        "p",
        "e",
        (Step("s", Command("true")),),
        preflight=(Check("prometheus", {"url": "http://${HOST}", "token": "${PROMETHEUS_TOKEN}"}),),
        health=(
            Check("redis", {"url": "redis://cache", "password": "${REDIS_PASSWORD}"}),
            Check("redis", {"url": "redis://cache", "password": "said openly"}),
            Check("http", {"url": "http://x", "token": 7}),
        ),
        version_probe=Check("http", {"url": "http://x", "password": "${PROBE}", "token": "${PROMETHEUS_TOKEN}"}),
        secrets=("TOKEN",),
        sources=(
            SecretSource("TOKEN", vault=VaultFile("secrets.yml", password="VAULT")),
            SecretSource("OTHER", vault=VaultFile("secrets.yml", password_file="/etc/vault")),
        ),
    )
    assert plan.hidden == ("TOKEN", "VAULT", "PROMETHEUS_TOKEN", "REDIS_PASSWORD", "PROBE")
