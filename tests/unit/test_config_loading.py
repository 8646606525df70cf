# SPDX-License-Identifier: Apache-2.0
"""What is a config, and what is told about one that is none: each with code, line, key, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from surefoot.config.fields import Duration
from surefoot.config.freeze import freeze
from surefoot.config.loading import load, peek
from surefoot.config.models import Config
from surefoot.config.problems import ConfigProblems, Problem
from surefoot.core.errors import Code, ConfigError, Exit, NotFoundError
from surefoot.core.lease import Role
from surefoot.core.plan import SecretSource, Ssh, VaultFile


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Http(Options):
    url: str
    status: int | list[int] = 200
    json_: dict[str, Any] = {}
    timeout: Duration = 5.0


class Disk(Options):
    below: str = "90%"

    @classmethod
    def needs_hosts(cls, options: dict[str, Any]) -> bool:
        return True


class Limits(Options):
    low: int = Field(1, ge=1)
    high: int = 9

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above\nhigh {self.high}")
        return self


class Shell(Options):
    run: str


KINDS: dict[str, type[BaseModel]] = {"http": Http, "disk": Disk, "command": Shell, "limits": Limits}
Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "stage.yml").write_text("- hosts: all\n")
    (tmp_path / "inventory.ini").write_text("[web]\nweb-01\n")

    def write(text: str | bytes) -> Path:
        path = tmp_path / "surefoot.yml"
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    return write


def problems(path: Path, environ: dict[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigProblems) as caught:
        load(path, kinds=KINDS, environ=environ or {})
    assert caught.value.exit_code is Exit.USAGE
    for problem in caught.value.problems:
        assert str(problem) in caught.value.message
        assert "\n" not in str(problem)
    return caught.value.problems


def only(path: Path, environ: dict[str, str] | None = None) -> Problem:
    found = problems(path, environ)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


COMPLETE = """\
project: paws360
x-anchors:
  - &patient {attempts: 5, delay: 0s}
agents:
  production-runner-01: {role: primary}
  production-runner-02: {role: secondary}
  anywhere:             {role: emergency}
store: postgresql://deploy:${STORE_PASSWORD}@${DB_HOST}/surefoot
lease: {ttl: 5s}
secrets: [STORE_PASSWORD, API_TOKEN]
environments:
  staging:
    steps: [{name: one, run: "echo ${HOME} $SUREFOOT_VERSION"}]
  production:
    inventory: inventory.ini
    steps:
      - name: stage
        playbook: playbooks/stage.yml
      - name: migrate the database
        run: ./scripts/migrate.sh
        undo: {run: ./scripts/back.sh}
        retry: {<<: *patient, timeout: 1h30m}
        leaves_processes: true
    retry: {attempts: 3, delay: 30s, timeout: 10m}
    preflight:
      - http: {url: "http://${DB_HOST}/?t=${API_TOKEN}&raw=$${DB_HOST}"}
      - disk:
    health:
      - http: {url: "http://{host}:8080/health", status: 200, timeout: 500ms}
        name: backend
      - command: {run: "test -n \\"${HOME}\\""}
    health_policy: {within: 60s, interval: 2s, successes: 2}
    version_probe: {command: {run: cat VERSION}}
    state_file: /var/lib/paws360-production-state.json
    on_cancel: finish
    takeover_limit: 7
    fence: {path: /var/lib/surefoot}
    approvals: {required: 1, from: [sre]}
    promote_from: {environment: staging, within: 14d, after: 1h}
    windows: [{days: [mon, Friday], from: 09:00, to: "17:00", time_zone: Europe/Zurich}, {}]
    queue: latest
    bake: 10m
groups: {sre: [ann, bob@laptop]}
"""


def test_every_documented_key_is_read(write: Write) -> None:
    config = load(write(COMPLETE), kinds=KINDS, environ={"DB_HOST": "db.example"})

    assert [(name, agent.role) for name, agent in config.agents.items()] == [
        ("production-runner-01", Role.PRIMARY),
        ("production-runner-02", Role.SECONDARY),
        ("anywhere", Role.EMERGENCY),
    ]
    assert config.lease.ttl == 5.0
    assert config.store == "postgresql://deploy:${STORE_PASSWORD}@db.example/surefoot"
    production = config.environment("production")
    migrate = production.steps[1]
    assert (migrate.retry.attempts, migrate.retry.delay, migrate.retry.timeout) == (5, 0.0, 5400.0)
    assert production.health[0].name == "backend"
    assert production.preflight[0].options == {"url": "http://db.example/?t=${API_TOKEN}&raw=${DB_HOST}"}
    assert production.preflight[1].options == {}
    assert production.approvals is not None and production.approvals.from_ == ("sre",)
    assert production.promote_from is not None and production.promote_from.within == 14 * 86_400
    assert (production.queue, production.bake) == ("latest", 600.0)
    window = production.windows[0]
    assert (window.days, window.from_, window.to) == (("mon", "fri"), 540, 1020)
    assert config.groups == {"sre": ("ann", "bob@laptop")}


def test_commands_are_left_to_the_shell(write: Write) -> None:
    config = load(write(COMPLETE), kinds=KINDS, environ={"DB_HOST": "x", "HOME": "/root"})
    assert config.environment("staging").steps[0].run == "echo ${HOME} $SUREFOOT_VERSION"
    assert config.environment("production").health[1].options == {"run": 'test -n "${HOME}"'}


def test_secrets_from_everywhere_are_read_as_sources_and_nothing_in_them_is_replaced(write: Write) -> None:
    text = (
        environment(STEP + "ssh: {private_key: '${KEY}', user: '${LOGIN}'}")
        + """\
secrets:
  - PLAIN
  - {name: ALIAS, env: OTHER}
  - {name: FILE, file: /etc/surefoot/file}
  - {name: SHELL, command: "pass show $USER | head -1", timeout: 3s}
  - {name: ARGV, command: [vault, read, x]}
  - name: VAULT
    ansible_vault: {file: /x.yml, key: a.b, password: "${OPENS}"}
"""
    )
    config = load(write(text), kinds=None, environ={"KEY": "key", "OPENS": "word", "LOGIN": "root", "USER": "me"})
    plan = freeze(config, "e")
    assert plan.secrets == ("PLAIN", "ALIAS", "FILE", "SHELL", "ARGV", "VAULT")
    assert plan.sources == (
        SecretSource("ALIAS", env="OTHER"),
        SecretSource("FILE", file="/etc/surefoot/file"),
        SecretSource("SHELL", command=("/bin/sh", "-c", "pass show $USER | head -1"), timeout=3.0),
        SecretSource("ARGV", command=("vault", "read", "x")),
        SecretSource("VAULT", vault=VaultFile("/x.yml", "a.b", password="OPENS")),
    )
    assert plan.ssh == Ssh("${KEY}", "${LOGIN}")
    assert plan.needed == (*plan.secrets, "KEY", "LOGIN")
    assert plan.hidden == (*plan.secrets, "KEY", "OPENS"), "a user's name is no secret unless it is listed"


def test_a_secret_is_never_expanded_even_if_it_is_defined(write: Write) -> None:
    environ = {"DB_HOST": "x", "API_TOKEN": "s3cr3t", "STORE_PASSWORD": "s3cr3t"}
    assert "s3cr3t" not in repr(load(write(COMPLETE), kinds=KINDS, environ=environ))


def test_the_smallest_config_has_the_documented_defaults(write: Write) -> None:
    path = write("project: p\nenvironments: {e: {steps: [{name: s, run: 'true'}]}}\n")
    config = load(path, kinds=KINDS, environ={})
    environment = config.environment("e")
    assert not config.agents
    assert config.lease.ttl == 5.0
    assert (environment.retry.attempts, environment.retry.delay, environment.retry.timeout) == (3, 30.0, 600.0)
    policy = environment.health_policy
    assert (policy.within, policy.every, policy.successes) == (60.0, 2.0, 2)
    assert environment.takeover_limit == 5
    assert config.path == path
    assert config.folder == path.parent


def test_the_default_interval_fits_a_short_within(write: Write) -> None:
    path = write(
        "project: p\nenvironments: {e: {steps: [{name: s, run: 'true'}], health_policy: {within: 1s, successes: 3}}}\n"
    )
    policy = load(path, kinds=KINDS, environ={}).environment("e").health_policy
    assert policy.every * policy.successes < policy.within


def test_keys_are_text_as_written_even_where_yaml_has_other_ideas(write: Write) -> None:
    config = load(
        write("""
        project: p
        environments:
          no: {steps: [{name: s, run: 'true'}]}
          on: {steps: [{name: s, run: 'true'}]}
          1.0: {steps: [{name: s, run: 'true'}]}
          2024-01-01: {steps: [{name: s, run: 'true'}]}
        """),
        kinds=KINDS,
        environ={},
    )
    assert list(config.environments) == ["no", "on", "1.0", "2024-01-01"]


def test_an_unknown_environment_is_exit_7_with_a_suggestion(write: Write) -> None:
    config = load(write(COMPLETE), kinds=KINDS, environ={"DB_HOST": "x"})
    with pytest.raises(NotFoundError, match="did you mean 'production'") as caught:
        config.environment("prodution")
    assert caught.value.exit_code is Exit.NOT_FOUND
    assert caught.value.code is Code.ENVIRONMENT_UNKNOWN
    assert "staging" in caught.value.hint


def test_all_problems_are_told_at_once_in_the_order_of_lines(write: Write) -> None:
    found = problems(
        write("""\
        project: a b
        lease: {ttl: 5}
        environments:
          production:
            steps:
              - name: stage
                playbok: playbooks/stage.yml
              - name: stage
                run: 'true'
                retry: {attempts: 0, timeout: 5min}
            health:
              - htp: {url: x}
              - http: {url: "${NOWHERE}"}
            state_file: /var/lib/x
            on_cancel: roll
        """)
    )
    assert [(p.line, p.key) for p in found] == [
        (1, "project"),
        (2, "lease.ttl"),
        (7, "environments.production.steps[0].playbok"),
        (8, "environments.production.steps[1].name"),
        (10, "environments.production.steps[1].retry.attempts"),
        (10, "environments.production.steps[1].retry.timeout"),
        (12, "environments.production.health[0].htp"),
        (13, "environments.production.health[1].http.url"),
        (14, "environments.production.state_file"),
        (15, "environments.production.on_cancel"),
    ]


def test_a_problem_is_one_line_with_file_line_key_and_what_is_allowed(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        "project: p\nenvironments:\n  e:\n    steps:\n      - {name: s, run: 'true'}\n      - {name: t, rum: 'true'}\n"
    )
    monkeypatch.chdir(path.parent)
    assert str(only(path)) == (
        "surefoot.yml:6: environments.e.steps[1].rum: unknown key; did you mean 'run'? "
        "(allowed: name, run, playbook, undo, retry, leaves_processes)"
    )


def environment(body: str) -> str:
    """Return a config whose only environment has this body; the body begins in line 4."""
    return "project: p\nenvironments:\n  e:\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"


STEP = "steps: [{name: s, run: 'true'}]\n"

BAD: dict[str, tuple[str, Code, int | None, str, str, str]] = {
    # name: (config, code, line, key, in the message, in the hint)
    "empty file": ("", Code.CONFIG_SYNTAX, None, "", "is empty", "surefoot init"),
    "only comments": ("# nothing\n\n", Code.CONFIG_SYNTAX, None, "", "is empty", "surefoot init"),
    "null": ("~\n", Code.CONFIG_SYNTAX, None, "", "is empty", "surefoot init"),
    "list at the top": ("- a\n", Code.CONFIG_SYNTAX, 1, "", "must be a mapping", "project:"),
    "text at the top": ("\nhello\n", Code.CONFIG_SYNTAX, 2, "", "not text ('hello')", "project:"),
    "unclosed bracket": ("project: p\nx: [1,\n", Code.CONFIG_SYNTAX, 3, "", "not YAML", "indentation"),
    "tab in indentation": ("project: p\nlease:\n\tttl: 5s\n", Code.CONFIG_SYNTAX, 3, "", "a tab", "spaces"),
    "colon in a value": ("project: a: b\n", Code.CONFIG_SYNTAX, 1, "", "another key", "quote"),
    "value with @": ("project: @x\n", Code.CONFIG_SYNTAX, 1, "", "@ can't begin", "quote"),
    "control character": ("project: a\x01\n", Code.CONFIG_SYNTAX, 1, "", "U+0001", "remove"),
    "unquoted variable in braces": (
        environment(STEP + "retry: {delay: ${D}}"),
        Code.CONFIG_SYNTAX,
        5,
        "",
        "in braces",
        "quote values with ${NAME}",
    ),
    "merge of what can't be merged": (
        environment(STEP + "retry: {<<: 5}"),
        Code.CONFIG_SYNTAX,
        5,
        "environments.e.retry.'<<'",
        "takes a mapping",
        "<<: *anchor",
    ),
    "playbook in the store's folder": (
        environment("inventory: inventory.ini\nsteps: [{name: s, playbook: .surefoot/x.yml}]"),
        Code.CONFIG_FILE,
        5,
        "environments.e.steps[0].playbook",
        "never deployed from",
        "",
    ),
    "inventory list with a line break": (
        environment('inventory: "a,\\nb"\n' + STEP),
        Code.CONFIG_VALUE,
        4,
        "environments.e.inventory",
        "not a list of hosts",
        "web1,web2,",
    ),
    "duration as list": (
        environment(STEP + "retry: {delay: [5s]}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.delay",
        "must be a duration, not a list",
        "5s",
    ),
    "check with a strange name": (
        environment(STEP + 'health: [{http: {url: x}, name: "a\\nb"}]'),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0]",
        "one line of text",
        "",
    ),
    "options as list": (
        environment(STEP + "health: [{http: [url]}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0]",
        "must be a mapping",
        "",
    ),
    "limit of an option": (
        environment(STEP + "health: [{limits: {low: 0}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0].limits.low",
        "must be at least 1",
        "",
    ),
    "a check's own opinion": (
        environment(STEP + "health: [{limits: {low: 5, high: 2}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0].limits",
        "low 5 is above high 2",
        "",
    ),
    "second document": ("project: p\n---\nproject: q\n", Code.CONFIG_SYNTAX, 2, "", "second document", "---"),
    "unknown anchor": ("project: *nowhere\n", Code.CONFIG_SYNTAX, 1, "project", "not defined", "&nowhere"),
    "anchor in itself": ("project: &a [*a]\n", Code.CONFIG_SYNTAX, 1, "project[0]", "contains itself", "&a"),
    "mapping as key": (
        environment(STEP + "? {a: b}\n: c"),
        Code.CONFIG_SYNTAX,
        5,
        "environments.e",
        "a key must be text",
        "quote",
    ),
    "unquoted placeholder": (
        environment(STEP + "state_file: {version}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.state_file",
        "not a mapping",
        "",
    ),
    "vault tag": (
        "project: !vault abc\n" + environment(STEP)[11:],
        Code.CONFIG_SYNTAX,
        1,
        "project",
        "!vault",
        "playbooks",
    ),
    "python tag": (
        "project: !!python/object/apply:os.system [echo]\n" + environment(STEP)[11:],
        Code.CONFIG_SYNTAX,
        1,
        "project",
        "!!python",
        "remove",
    ),
    "not a number": (
        environment(STEP + "takeover_limit: .nan"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.takeover_limit",
        "no number",
        "quote",
    ),
    "huge number": (
        environment(STEP + f"takeover_limit: {'9' * 5000}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.takeover_limit",
        "",
        "quote",
    ),
    "surrogate": ('project: "\\ud800"\n' + environment(STEP)[11:], Code.CONFIG_SYNTAX, 1, "", "not YAML", ""),
    "nul": (
        'project: "a\\0b"\n' + environment(STEP)[11:],
        Code.CONFIG_VALUE,
        1,
        "project",
        "no text can carry",
        "remove",
    ),
    "duplicate key": (
        environment(STEP + STEP),
        Code.CONFIG_KEY,
        5,
        "environments.e.steps",
        "first in line 4",
        "keep one",
    ),
    "duplicate environment": (
        environment(STEP) + "  e:\n    steps: []\n",
        Code.CONFIG_KEY,
        5,
        "environments.e",
        "written twice",
        "keep one",
    ),
    "missing project": (
        environment(STEP).replace("project: p\n", "\n"),
        Code.CONFIG_KEY,
        2,
        "project",
        "is required",
        "surefoot init",
    ),
    "missing steps": (environment("queue: all"), Code.CONFIG_KEY, 3, "environments.e.steps", "is required", ""),
    "no environments": ("project: p\nenvironments: {}\n", Code.CONFIG_KEY, 2, "environments", "at least one", ""),
    "no steps": (environment("steps: []"), Code.CONFIG_KEY, 4, "environments.e.steps", "at least one", ""),
    "no agents": (environment(STEP) + "agents: {}\n", Code.CONFIG_VALUE, 5, "agents", "is empty", "leave agents out"),
    "key without a value": (
        environment(STEP) + "agents:\n",
        Code.CONFIG_VALUE,
        5,
        "agents",
        "is empty",
        "leave the key out",
    ),
    "unknown top key": (environment(STEP) + "agent: {}\n", Code.CONFIG_KEY, 5, "agent", "did you mean 'agents'", ""),
    "unknown role": (
        environment(STEP) + "agents: {a: {role: main}}\n",
        Code.CONFIG_VALUE,
        5,
        "agents.a.role",
        "(allowed: primary, secondary, emergency)",
        "",
    ),
    "agent as text": (
        environment(STEP) + "agents: {a: primary}\n",
        Code.CONFIG_VALUE,
        5,
        "agents.a",
        "must be a mapping",
        "",
    ),
    "agents as list": (environment(STEP) + "agents: [a]\n", Code.CONFIG_VALUE, 5, "agents", "must be a mapping", ""),
    "project is a number": (
        "project: 360\n" + environment(STEP)[11:],
        Code.CONFIG_VALUE,
        1,
        "project",
        "not a number",
        "quotes",
    ),
    "project is yes": (
        "project: yes\n" + environment(STEP)[11:],
        Code.CONFIG_VALUE,
        1,
        "project",
        "not true or false",
        "quotes",
    ),
    "unsafe project": (
        "project: ../x\n" + environment(STEP)[11:],
        Code.CONFIG_VALUE,
        1,
        "project",
        "can't be a name",
        "letters",
    ),
    "unsafe environment": (
        environment(STEP).replace("  e:", '  "e/../x":'),
        Code.CONFIG_VALUE,
        3,
        "environments.'e/../x'",
        "can't be a name",
        "letters",
    ),
    "long environment": (
        environment(STEP).replace("  e:", f"  {'e' * 65}:"),
        Code.CONFIG_VALUE,
        3,
        f"environments.{'e' * 65}",
        "64 are allowed",
        "",
    ),
    "unsafe agent": (
        environment(STEP) + "agents: {'a b': {}}\n",
        Code.CONFIG_VALUE,
        5,
        "agents.'a b'",
        "can't be a name",
        "",
    ),
    "step without name": (
        environment("steps: [{run: x}]"),
        Code.CONFIG_KEY,
        4,
        "environments.e.steps[0].name",
        "is required",
        "",
    ),
    "step name of two lines": (
        environment('steps: [{name: "a\\nb", run: x}]'),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].name",
        "can't be a step's name",
        "one line",
    ),
    "step does nothing": (
        environment("steps: [{name: s}]"),
        Code.CONFIG_KEY,
        4,
        "environments.e.steps[0]",
        "needs run or playbook",
        "",
    ),
    "step does two things": (
        environment("inventory: inventory.ini\nsteps: [{name: s, run: x, playbook: playbooks/stage.yml}]"),
        Code.CONFIG_KEY,
        5,
        "environments.e.steps[0]",
        "has both",
        "two steps",
    ),
    "empty command": (
        environment("steps: [{name: s, run: ' '}]"),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].run",
        "is empty",
        "",
    ),
    "duplicate step": (
        environment("steps:\n  - {name: s, run: x}\n  - {name: s, run: y}"),
        Code.CONFIG_VALUE,
        6,
        "environments.e.steps[1].name",
        "steps[0]",
        "its own",
    ),
    "no such playbook": (
        environment("inventory: inventory.ini\nsteps: [{name: s, playbook: playbooks/stag.yml}]"),
        Code.CONFIG_FILE,
        5,
        "environments.e.steps[0].playbook",
        "does not exist",
        "there is stage.yml",
    ),
    "no such undo playbook": (
        environment("inventory: inventory.ini\nsteps: [{name: s, run: x, undo: {playbook: nothing.yml}}]"),
        Code.CONFIG_FILE,
        5,
        "environments.e.steps[0].undo.playbook",
        "does not exist",
        "",
    ),
    "playbook is a folder": (
        environment("inventory: inventory.ini\nsteps: [{name: s, playbook: playbooks}]"),
        Code.CONFIG_FILE,
        5,
        "environments.e.steps[0].playbook",
        "is a folder",
        "",
    ),
    "absolute playbook": (
        environment("inventory: inventory.ini\nsteps: [{name: s, playbook: /etc/passwd}]"),
        Code.CONFIG_FILE,
        5,
        "environments.e.steps[0].playbook",
        "outside the project",
        "copy of that folder",
    ),
    "playbook above": (
        environment("inventory: inventory.ini\nsteps: [{name: s, playbook: playbooks/../../x.yml}]"),
        Code.CONFIG_FILE,
        5,
        "environments.e.steps[0].playbook",
        "outside the project",
        "",
    ),
    "playbook like an option": (
        environment("inventory: inventory.ini\nsteps: [{name: s, playbook: --version}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.steps[0].playbook",
        "can't be the path",
        "",
    ),
    "no such inventory": (
        environment("inventory: inventory.in\n" + STEP),
        Code.CONFIG_FILE,
        4,
        "environments.e.inventory",
        "does not exist",
        "inventory.ini",
    ),
    "inventory list of nobody": (
        environment("inventory: ','\n" + STEP),
        Code.NO_HOSTS,
        4,
        "environments.e.inventory",
        "names no hosts",
        "web1,web2,",
    ),
    "playbook without inventory": (
        environment("steps: [{name: s, playbook: playbooks/stage.yml}]"),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].playbook",
        "has no inventory",
        "add inventory",
    ),
    "undo playbook without inventory": (
        environment("steps: [{name: s, run: x, undo: {playbook: playbooks/stage.yml}}]"),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].undo.playbook",
        "has no inventory",
        "add inventory",
    ),
    "{host} without inventory": (
        environment(STEP + "health: [{http: {url: 'http://{host}/'}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0].http",
        "{host}",
        "add inventory",
    ),
    "check of hosts without inventory": (
        environment(STEP + "health: [{disk: {}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0].disk",
        "looks at hosts",
        "add inventory",
    ),
    "state file without inventory": (
        environment(STEP + "state_file: /x"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.state_file",
        "has no inventory",
        "add inventory",
    ),
    "version probe without inventory": (
        environment(STEP + "version_probe: {command: {run: x}}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.version_probe",
        "has no inventory",
        "",
    ),
    "relative state file": (
        environment("inventory: inventory.ini\n" + STEP + "state_file: x.json"),
        Code.CONFIG_VALUE,
        6,
        "environments.e.state_file",
        "absolute path",
        "/var/lib",
    ),
    "unknown kind of check": (
        environment(STEP + "health: [{htpp: {url: x}}]"),
        Code.CONFIG_KEY,
        5,
        "environments.e.health[0].htpp",
        "did you mean 'http'?",
        "",
    ),
    "unknown option of a check": (
        environment(STEP + "health: [{http: {url: x, stauts: 200}}]"),
        Code.CONFIG_KEY,
        5,
        "environments.e.health[0].http.stauts",
        "did you mean 'status'? (allowed: url, status",
        "",
    ),
    "missing option of a check": (
        environment(STEP + "health: [{http: {}}]"),
        Code.CONFIG_KEY,
        5,
        "environments.e.health[0].http.url",
        "is required",
        "",
    ),
    "wrong option of a check": (
        environment(STEP + "health: [{http: {url: x, status: fine}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0].http.status",
        "must be a whole number or a list, not text ('fine')",
        "",
    ),
    "bad duration in a check": (
        environment(STEP + "health: [{http: {url: x, timeout: 5}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0].http.timeout",
        "no unit",
        "5s",
    ),
    "check of two kinds": (
        environment(STEP + "health: [{http: {url: x}, disk: {}}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0]",
        "one kind",
        "a - of its own",
    ),
    "check of no kind": (
        environment(STEP + "health: [{name: x}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0]",
        "one kind",
        "",
    ),
    "check as text": (
        environment(STEP + "health: [http]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health[0]",
        "one check",
        "http: {url",
    ),
    "checks as mapping": (
        environment(STEP + "health: {http: {url: x}}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.health",
        "must be a list",
        "",
    ),
    "duration as number": (
        environment(STEP + "retry: {delay: 30}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.delay",
        "30 has no unit",
        "30s",
    ),
    "duration as text number": (
        environment(STEP + "retry: {delay: '30'}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.delay",
        "not a duration",
        "30s",
    ),
    "duration in minutes": (
        environment(STEP + "retry: {delay: 5 minutes}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.delay",
        "not a duration",
        "5m",
    ),
    "duration in weeks": (
        environment(STEP + "retry: {timeout: 2w}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.timeout",
        "not a duration",
        "14d",
    ),
    "negative duration": (
        environment(STEP + "retry: {delay: -5s}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.delay",
        "not a duration",
        "never negative",
    ),
    "endless duration": (
        environment(STEP + "retry: {timeout: 99999999h}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.timeout",
        "longer than a year",
        "",
    ),
    "sexagesimal duration": (
        environment(STEP + "retry: {timeout: 1:30}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.timeout",
        "90 has no unit",
        "",
    ),
    "no time at all": (
        environment(STEP + "retry: {timeout: 0s}"),
        Code.CONFIG_TIMING,
        5,
        "environments.e.retry.timeout",
        "longer than zero",
        "",
    ),
    "no attempts": (
        environment(STEP + "retry: {attempts: 0}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.attempts",
        "at least 1",
        "",
    ),
    "half an attempt": (
        environment(STEP + "retry: {attempts: 1.5}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.attempts",
        "whole number",
        "",
    ),
    "true attempts": (
        environment(STEP + "retry: {attempts: true}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.retry.attempts",
        "whole number",
        "",
    ),
    "leaves_processes: 1": (
        environment("steps: [{name: s, run: x, leaves_processes: 1}]"),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].leaves_processes",
        "true or false",
        "",
    ),
    "short ttl": (
        environment(STEP) + "lease: {ttl: 500ms}\n",
        Code.CONFIG_TIMING,
        5,
        "lease",
        "ttl 500ms is not between 1s and 1h",
        "",
    ),
    "long ttl": (environment(STEP) + "lease: {ttl: 24h}\n", Code.CONFIG_TIMING, 5, "lease", "ttl 1d", ""),
    "interval beyond within": (
        environment(STEP + "health_policy: {within: 5s, interval: 10s}"),
        Code.CONFIG_TIMING,
        5,
        "environments.e.health_policy",
        "interval 10s is longer than within 5s",
        "",
    ),
    "successes beyond within": (
        environment(STEP + "health_policy: {within: 10s, interval: 5s, successes: 10}"),
        Code.CONFIG_TIMING,
        5,
        "environments.e.health_policy",
        "10 successes at an interval of 5s do not fit within 10s",
        "",
    ),
    "breathless interval": (
        environment(STEP + "health_policy: {interval: 1ms}"),
        Code.CONFIG_TIMING,
        5,
        "environments.e.health_policy",
        "shorter than 50ms",
        "",
    ),
    "undefined variable": (
        environment(STEP) + "store: ${DB}/x\n",
        Code.CONFIG_VARIABLE,
        5,
        "store",
        "${DB} is not set",
        "set DB",
    ),
    "unknown form of variable": (
        environment(STEP) + "store: ${DB:-x}\n",
        Code.CONFIG_VARIABLE,
        5,
        "store",
        "${DB:-x}",
        "$${",
    ),
    "bad secret name": (
        environment(STEP) + "secrets: [a-b]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[0]",
        "environment variable",
        "",
    ),
    "secret from nowhere known": (
        environment(STEP) + "secrets: [{name: A, vault: /x}]\n",
        Code.CONFIG_KEY,
        5,
        "secrets[0].vault",
        "vault",
        "",
    ),
    "secret from two places": (
        environment(STEP) + "secrets: [{name: A, file: /x, command: y}]\n",
        Code.CONFIG_KEY,
        5,
        "secrets[0]",
        "has both file and command",
        "keep one",
    ),
    "secret in a file of the project": (
        environment(STEP) + "secrets: [{name: A, file: x/y}]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[0].file",
        "is not an absolute path on the agents",
        "everybody's copy",
    ),
    "secret in another's arguments": (
        environment(STEP) + "secrets: [{name: A, command: [get, '${B}']}, B]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[0].command",
        "can't be a secret",
        "from its environment",
    ),
    "secret by an empty command": (
        environment(STEP) + "secrets: [{name: A, command: []}]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[0].command",
        "must be a shell command, or a list",
        "as in [vault",
    ),
    "vault without a password": (
        environment(STEP) + "secrets: [{name: A, ansible_vault: {file: /x}}]\n",
        Code.CONFIG_KEY,
        5,
        "secrets[0].ansible_vault",
        "needs password or password_file",
        "VAULT_PASSWORD",
    ),
    "password of a vault in the clear": (
        environment(STEP) + "secrets: [{name: A, ansible_vault: {file: /x, password: geheim}}]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[0].ansible_vault.password",
        "not hold the value itself",
        "",
    ),
    "vault that holds its own password": (
        environment(STEP) + "secrets: [{name: A, ansible_vault: {file: /x, password: '${A}'}}]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[0]",
        "opens its own vault",
        "another",
    ),
    "secret twice, once with a source": (
        environment(STEP) + "secrets: [A, {name: A, file: /x}]\n",
        Code.CONFIG_VALUE,
        5,
        "secrets[1]",
        "listed twice",
        "keep one",
    ),
    "private key in the clear": (
        environment(STEP + "ssh: {private_key: id_rsa}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.ssh.private_key",
        "not hold the value itself",
        "",
    ),
    "user that is none": (
        environment(STEP + "ssh: {user: 'a b'}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.ssh.user",
        "is no user's name",
        "",
    ),
    "secret twice": (environment(STEP) + "secrets: [A, A]\n", Code.CONFIG_VALUE, 5, "secrets[1]", "listed twice", ""),
    "promoted from nowhere": (
        environment(STEP + "promote_from: x"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.promote_from",
        "no environment 'x'",
        "",
    ),
    "promoted from itself": (
        environment(STEP + "promote_from: e"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.promote_from",
        "from itself",
        "",
    ),
    "promoted from nowhere, in a mapping": (
        environment(STEP + "promote_from: {environment: x}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.promote_from.environment",
        "no environment 'x'",
        "",
    ),
    "promoted in no time": (
        environment(STEP + "promote_from: {environment: o, within: 1h, after: 1h}")
        + "  o: {steps: [{name: s, run: x}]}\n",
        Code.CONFIG_TIMING,
        5,
        "environments.e.promote_from",
        "not shorter",
        "",
    ),
    "a time that YAML reads as a number": (
        environment(STEP + "windows: [{to: 17:00}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.windows[0].to",
        "not a number",
        "quotes",
    ),
    "no time of day": (
        environment(STEP + 'windows: [{from: "25:00"}]'),
        Code.CONFIG_VALUE,
        5,
        "environments.e.windows[0].from",
        "not a time of day",
        "09:00",
    ),
    "an empty window": (
        environment(STEP + 'windows: [{from: "09:00", to: "09:00"}]'),
        Code.CONFIG_TIMING,
        5,
        "environments.e.windows[0]",
        "the same",
        "",
    ),
    "no day": (
        environment(STEP + "windows: [{days: [someday]}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.windows[0].days[0]",
        "not a day",
        "",
    ),
    "no time zone": (
        environment(STEP + "windows: [{time_zone: Europe/Zurch}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.windows[0].time_zone",
        "Europe/Zurich",
        "",
    ),
    "a time zone that machines have each for themselves": (
        environment(STEP + "windows: [{time_zone: localtime}]"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.windows[0].time_zone",
        "another time zone on each machine",
        "",
    ),
    "nothing to bake": (environment(STEP + "bake: 10m"), Code.CONFIG_VALUE, 5, "environments.e.bake", "no health", ""),
    "two ways back": (
        environment("steps: [{name: s, run: x, undo: {run: y}}]\nrollback: {run: z}"),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].undo",
        "in place of all undo",
        "",
    ),
    "a step called rollback": (
        environment("steps: [{name: rollback, run: x}]\nrollback: {run: z}"),
        Code.CONFIG_VALUE,
        4,
        "environments.e.steps[0].name",
        "rollback",
        "",
    ),
    "a rollback without hosts": (
        environment(STEP + "rollback: {playbook: playbooks/stage.yml}"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.rollback.playbook",
        "needs hosts",
        "",
    ),
    "approved by nobody": (
        environment(STEP + "approvals: {from: []}"),
        Code.CONFIG_KEY,
        5,
        "environments.e.approvals.from",
        "at least one",
        "",
    ),
    "unknown queue": (
        environment(STEP + "queue: newest"),
        Code.CONFIG_VALUE,
        5,
        "environments.e.queue",
        "(allowed: all, latest)",
        "",
    ),
    "nested too deep": (
        "project: " + "[" * 200 + "]" * 200 + "\n",
        Code.CONFIG_SYNTAX,
        1,
        "project[0][0][0][0][0]",
        "nested deeper",
        "",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_with_code_line_key_and_hint(write: Write, name: str) -> None:
    text, code, line, key, message, hint = BAD[name]
    problem = only(write(text))
    assert (problem.code, problem.line, problem.key) == (code, line, key), str(problem)
    assert message in str(problem)
    assert hint in problem.hint


def test_a_single_problem_lends_its_code_and_hint_to_the_error(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(environment(STEP + "retry: {delay: 30}")), kinds=KINDS, environ={})
    assert caught.value.code is Code.CONFIG_VALUE
    assert caught.value.hint == "write 30s if seconds are meant"


def test_a_variable_that_was_replaced_is_never_shown(write: Write) -> None:
    path = write(environment(STEP + "on_cancel: ${MODE}\nretry: {attempts: '${MODE}'}"))
    for problem in problems(path, {"MODE": "hidden-value"}):
        assert "hidden-value" not in str(problem) + problem.hint

    problem = only(write(environment(STEP + "health: [{limits: {low: '${LOW}'}}]")), {"LOW": "4711"})
    assert "4711" not in str(problem) + problem.hint
    assert "variables hold" in problem.message


def test_an_alias_may_be_a_key_and_a_merge_may_be_a_list(write: Write) -> None:
    path = write("""\
        x-names: [&name production, &a {attempts: 2, delay: 1s}, &b {attempts: 9, timeout: 3s}]
        project: p
        environments:
          *name :
            steps: [{name: s, run: x}]
            retry: {<<: [*a, *b], delay: 0s}
    """)
    retry = load(path, kinds=KINDS, environ={}).environment("production").retry
    assert (retry.attempts, retry.delay, retry.timeout) == (2, 0.0, 3.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "binary"),
        ("project: p".encode("utf-16"), "UTF-8"),
        (b"project: p\nx: \xff\xfe\n", "UTF-8"),
        (b"#" * (1024 * 1024 + 1), "1 MiB"),
    ],
)
def test_a_file_that_is_no_text_is_refused(write: Write, data: bytes, message: str) -> None:
    problem = only(write(data))
    assert problem.code is Code.CONFIG_SYNTAX
    assert message in problem.message


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(write: Write) -> None:
    data = b"\xef\xbb\xbf" + environment(STEP).replace("\n", "\r\n").encode()
    assert load(write(data), kinds=KINDS, environ={}).project == "p"


def test_a_missing_file_a_folder_and_a_pipe_are_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in [
        ("nothing.yml", "does not exist"),
        (".", "is a folder"),
        ("pipe", "not a regular file"),
        ("loop", "can't be read"),
        ("n" * 300, "can't be read"),
    ]:
        problem = only(tmp_path / name)
        assert problem.code is Code.CONFIG_MISSING
        assert message in problem.message
        assert problem.hint


def test_a_file_without_permission_says_so(write: Write) -> None:
    path = write(environment(STEP))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        problem = only(path)
    finally:
        os.seteuid(user)
    assert problem.code is Code.CONFIG_MISSING
    assert "permission denied" in problem.message
    assert "chmod" in problem.hint


def test_aliases_that_multiply_are_refused_before_they_cost_anything(write: Write) -> None:
    lines = ["x-0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"x-{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    started = time.monotonic()
    problem = only(write("\n".join(lines)))
    assert "aliases followed" in problem.message
    assert time.monotonic() - started < 10


def test_an_inventory_may_be_a_folder_a_script_or_a_list_of_hosts(write: Write, tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    script = tmp_path / "dynamic"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    for inventory in ("hosts", "dynamic", "'web1,web2,'", "'web1,'"):
        load(write(environment(f"inventory: {inventory}\n" + STEP)), kinds=KINDS, environ={})


@pytest.mark.parametrize("content", ["", "\n# nobody\n", "[web]\n; none yet\n[db] ; later\n", "---\n"])
def test_an_inventory_with_no_hosts_is_refused(write: Write, tmp_path: Path, content: str) -> None:
    (tmp_path / "empty.ini").write_text(content)
    problem = only(write(environment("inventory: empty.ini\n" + STEP)))
    assert problem.code is Code.NO_HOSTS


def test_a_link_that_leads_out_of_the_project_is_refused(write: Write, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.yml"
    outside.write_text("- hosts: all\n")
    (tmp_path / "link.yml").symlink_to(outside)
    problem = only(write(environment("inventory: inventory.ini\nsteps: [{name: s, playbook: link.yml}]")))
    assert problem.code is Code.CONFIG_FILE
    assert "link that leads outside" in problem.message


def test_files_are_not_looked_for_when_only_the_text_matters(write: Write) -> None:
    path = write(environment("inventory: gone.ini\nsteps: [{name: s, playbook: gone.yml}]"))
    assert isinstance(load(path, kinds=KINDS, environ={}, files=False), Config)


def test_without_kinds_checks_are_taken_as_they_stand(write: Write) -> None:
    config = load(write(environment(STEP + "health: [{mystery: {x: 1}}]")), kinds=None, environ={})
    assert config.environment("e").health[0].kind == "mystery"


def test_promotion_in_a_circle_is_refused(write: Write) -> None:
    body = "steps: [{name: s, run: x}], promote_from"
    path = write(f"project: p\nenvironments:\n  a: {{{body}: b}}\n  b: {{{body}: c}}\n  c: {{{body}: a}}\n")
    assert [p.key for p in problems(path)] == [f"environments.{name}.promote_from" for name in "abc"]


def test_a_peek_finds_the_store_of_a_config_that_is_otherwise_wrong(write: Write) -> None:
    path = write("""
        project: p
        store: state/${WHERE}.db
        secrets: [WHO]
        environments: {e: {steps: wrong, nonsense: "${NOWHERE}"}}
    """)
    found = peek(path, environ={"WHERE": "here"})
    assert (found.project, found.store, found.secret_names, found.environments) == (
        "p",
        "state/here.db",
        ("WHO",),
        ("e",),
    )
    assert found.folder == path.parent
    with pytest.raises(ConfigProblems, match="WHERE"):
        peek(path, environ={})


def test_a_command_that_only_reads_pays_for_no_validation(write: Write) -> None:
    path = write(environment(STEP))
    code = (
        "import sys; from pathlib import Path; from surefoot.config.discovery import store_url; "
        "from surefoot.config.loading import peek; store_url(peek(Path(sys.argv[1])), None, {}); "
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False).returncode == 0


def test_variables_reach_numbers_and_truths_too(write: Write) -> None:
    path = write(
        environment("steps: [{name: s, run: x, leaves_processes: '${YES}'}]\nretry: {attempts: '${N}', delay: '${D}'}")
    )
    found = load(path, kinds=KINDS, environ={"YES": "true", "N": "4", "D": "1s"}).environment("e")
    assert found.steps[0].leaves_processes is True
    assert (found.retry.attempts, found.retry.delay) == (4, 1.0)
