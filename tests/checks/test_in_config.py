# SPDX-License-Identifier: Apache-2.0
"""Checks as a config holds them: the published example, secrets that only agents know, and who needs hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from surefoot.checks.registry import KINDS
from surefoot.config.freeze import freeze
from surefoot.config.loading import load
from surefoot.config.problems import ConfigProblems
from surefoot.core.plan import Check, Plan
from tests.support.looking import context

EXAMPLE = """\
    preflight:
      - secret: {name: PRODUCTION_SSH_PRIVATE_KEY, format: ssh-private-key}
      - prometheus: {url: "http://prometheus:9090", query: 'runner_status{runner="{agent}"}', equals: 1}
      - image: {ref: "registry.example/paws360/backend:{version}"}
    health:
      - http: {url: "http://{host}:8080/actuator/health", status: 200, json: {status: UP}}
      - redis: {url: "redis://cache:6379"}
      - disk: {below: 90%}
"""


def plan(folder: Path, checks: str, *, inventory: str = "web-01,", secrets: str = "[]", **environ: str) -> Plan:
    hosts = f"    inventory: '{inventory}'\n" if inventory else ""
    step = "    steps: [{name: s, run: 'true'}]\n"
    text = f"project: shop\nsecrets: {secrets}\nenvironments:\n  prod:\n{hosts}{checks}{step}"
    (folder / "surefoot.yml").write_text(text)
    return freeze(load(folder / "surefoot.yml", kinds=KINDS, environ=environ), "prod", {})


def problem(folder: Path, checks: str, **more: Any) -> str:
    with pytest.raises(ConfigProblems) as caught:
        plan(folder, checks, **more)
    return str(caught.value)


def test_published_example_is_valid(tmp_path: Path) -> None:
    found = plan(tmp_path, EXAMPLE, secrets="[PRODUCTION_SSH_PRIVATE_KEY]")
    assert [check.kind for check in (*found.preflight, *found.health)] == [
        "secret", "prometheus", "image", "http", "redis", "disk",
    ]  # fmt: skip


def test_password_is_the_agent_s_to_know(tmp_path: Path) -> None:
    checks = '    health: [{redis: {url: "redis://${CACHE}:6379", password: "${CACHE_PASSWORD}"}}]\n'
    found = plan(tmp_path, checks, CACHE="cache", CACHE_PASSWORD="s3cret")
    assert found.health == (Check("redis", {"url": "redis://cache:6379", "password": "${CACHE_PASSWORD}"}),)
    assert found.hidden == ("CACHE_PASSWORD",)
    assert b"s3cret" not in msgspec.json.encode(found)
    assert plan(tmp_path, checks, CACHE="cache") == found


def test_variable_can_not_smuggle_the_name_of_a_secret_in(tmp_path: Path) -> None:
    checks = '    health: [{redis: {url: "redis://cache:${PORT}", password: "${P}"}}]\n'
    found = plan(tmp_path, checks, PORT="${P}")
    assert found.health[0].options["url"] == "redis://cache:${P}"
    where = replace(context(), named={"P": "s3cret"})
    assert where.secret("${P}") == "s3cret"
    assert where.reveal_address("redis://cache:${P}") == "redis://cache:${P}"


def test_password_in_the_open_is_refused(tmp_path: Path) -> None:
    said = problem(tmp_path, '    health: [{redis: {url: "redis://cache", password: plain}}]\n')
    assert "must name a variable" in said
    assert "plain" not in said
    checks = '    health: [{redis: {url: "redis://:${P}@cache"}}]\n'
    said = problem(tmp_path, checks, P="s3cret")
    assert ("would be in the journal" in said, "s3cret" in said) == (True, False)
    assert plan(tmp_path, checks, secrets="[P]", P="s3cret").health[0].options["url"] == "redis://:${P}@cache"


@pytest.mark.parametrize("check", ["disk: {on: hosts}", "memory: {on: hosts}", 'http: {url: "http://x", on: hosts}'])
def test_check_of_hosts_needs_hosts(tmp_path: Path, check: str) -> None:
    assert "looks at hosts" in problem(tmp_path, f"    health: [{{{check}}}]\n", inventory="")
    plan(tmp_path, f"    health: [{{{check}}}]\n")


@pytest.mark.parametrize("check", ["disk: {}", "memory: {on: agent}"])
def test_agent_s_own_disk_and_memory_need_no_hosts(tmp_path: Path, check: str) -> None:
    plan(tmp_path, f"    health: [{{{check}}}]\n", inventory="")


TWO_IMAGES = """\
    preflight:
      - image: {{ref: "registry.example/shop/backend:{{version}}"}}
      - image: {{ref: "{ref}"{more}}}
"""


@pytest.mark.parametrize("ref", ["registry.example/pay/backend:{version}", "registry.example/shop/backend:1.0"])
def test_two_images_can_not_be_pinned_in_one_variable(tmp_path: Path, ref: str) -> None:
    said = problem(tmp_path, TWO_IMAGES.format(ref=ref, more=""))
    assert f"preflight[1].image: {ref} would be pinned in SUREFOOT_IMAGE_BACKEND" in said
    plan(tmp_path, TWO_IMAGES.format(ref=ref, more=", as: other"))


def test_an_image_may_be_looked_at_twice_and_one_whose_name_is_not_known_yet_too(tmp_path: Path) -> None:
    plan(tmp_path, TWO_IMAGES.format(ref="registry.example/shop/backend:{version}", more=", platform: linux/arm64"))
    plan(tmp_path, TWO_IMAGES.format(ref="registry.example/pay/{image}:{version}", more=""))
    plan(tmp_path, TWO_IMAGES.format(ref="registry.example:5000/backend@sha256:" + "0" * 64, more=", as: x"))
