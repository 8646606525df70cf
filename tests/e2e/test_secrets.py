# SPDX-License-Identifier: Apache-2.0
"""Secrets from everywhere, through real deployments: read anew for each attempt, and in nothing that is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually
from tests.support import canaries as birds

VAULT = str(Path(sys.executable).with_name("ansible-vault"))
OLD, NEW = "the-old-value-1234567", "the-new-value-7654321"
CONFIG = """\
project: shop
secrets: [SECRETS]
environments:
  prod:
    preflight: [CHECKS]
    steps:
      - name: use
        run: |
          USE
        undo: {run: 'echo "undone with $TOKEN"; printf %s "$TOKEN" > ROOT/undone'}
    retry: {attempts: 2, delay: 100ms, timeout: 50s}
"""
#: The first attempt notes its value, and rotates it; the second one succeeds with the new one.
ROTATE = """\
printf %s "$TOKEN" > ROOT/seen-$SUREFOOT_ATTEMPT; echo "with $TOKEN"
          if test $SUREFOOT_ATTEMPT = 1; then mv ROOT/next ROOT/token; exit 1; fi
          echo "$(cat ROOT/seen-1) then $TOKEN\""""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    one = Project(tmp_path)
    put(tmp_path / "token", OLD)
    put(tmp_path / "next", NEW)
    yield one
    one.close()


def put(path: Path, value: str, mode: int = 0o600) -> None:
    path.write_text(f"{value}\n")
    path.chmod(mode)


def configure(project: Project, secrets: str, use: str = ROTATE, checks: str = "") -> None:
    text = CONFIG.replace("SECRETS", secrets).replace("USE", use).replace("CHECKS", checks)
    project.config.write_text(text.replace("ROOT", str(project.folder.parent)))


def seen(project: Project, attempt: int) -> str:
    return (project.folder.parent / f"seen-{attempt}").read_text()


def everything(project: Project) -> str:
    """Return all that a person can read of a deployment, and what is in the store."""
    texts = [project.run(*args).stdout for args in (("logs", "prod-1"), ("events", "prod-1", "--output", "json"))]
    files = [path.read_bytes() for path in (project.folder / ".surefoot").rglob("*") if path.is_file()]
    return "".join([*texts, *(data.decode(errors="replace") for data in files)])


SOURCES = {
    "file": "{name: TOKEN, file: ROOT/token}",
    "shell command": "{name: TOKEN, command: 'cat ROOT/token; echo noise >&2'}",
    "command": "{name: TOKEN, command: [cat, ROOT/token]}",
    "a file that a command needs": "{name: TOKEN, command: 'printf %s \"$OTHER\"'}, {name: OTHER, file: ROOT/token}",
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_rotated_between_two_attempts_is_used_by_the_second_and_neither_value_is_shown(
    source: str, project: Project
) -> None:
    configure(project, SOURCES[source])
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 0, done.stderr
    assert (seen(project, 1), seen(project, 2)) == (OLD, NEW)
    assert "with ***" in done.stderr and "*** then ***" in done.stderr
    told = everything(project) + done.stdout + done.stderr
    assert OLD not in told and NEW not in told


def test_a_value_in_an_ansible_vault_is_opened_with_another_secret(project: Project) -> None:
    root = project.folder.parent
    put(root / "password", "vault-password-1")
    vault = project.folder / "vault.yml"
    sealed = subprocess.run(
        [VAULT, "encrypt_string", "--vault-password-file", str(root / "password"), OLD, "--name", "token"],
        capture_output=True, text=True, check=True, env={**project.env, "HOME": str(root)},
    ).stdout  # fmt: skip
    vault.write_text(f"smtp:\n  host: x\n  {sealed}".replace("\n          ", "\n            "))
    source = "{name: TOKEN, ansible_vault: {file: vault.yml, key: smtp.token, password: '${OPENS}'}}"
    configure(project, f"{source}, {{name: OPENS, file: ROOT/password}}", 'printf %s "$TOKEN" > ROOT/seen-1')
    assert project.run("deploy", "prod", "1.0").returncode == 0
    assert seen(project, 1) == OLD
    subprocess.run(
        [VAULT, "encrypt", "--vault-password-file", str(root / "password"), str(vault)],
        capture_output=True, check=True, env={**project.env, "HOME": str(root)},
    )  # fmt: skip
    configure(project, source.replace("password: '${OPENS}'", "password_file: ROOT/password"), 'test "$TOKEN" = ' + OLD)
    assert project.run("deploy", "prod", "1.1").returncode == 0
    put(root / "password", "another-word")
    done = project.run("deploy", "prod", "1.2")
    assert done.returncode == 3
    assert "error[SF-SECRET-VAULT]" in done.stderr and "password does not open vault.yml" in done.stderr
    configure(project, source.replace("smtp.token", "smtp.none"), "true")
    assert "OPENS, is not there" in project.run("deploy", "prod", "1.3").stderr
    put(root / "password", "vault-password-1")
    done = project.run("deploy", "prod", "1.4", OPENS="vault-password-1")
    assert "vault.yml has no smtp.none" in done.stderr and "hint: see what it holds" in done.stderr


TROUBLES = {
    "SF-SECRET-EXPOSED": (
        "{name: TOKEN, file: ROOT/open}",
        "read or written by others (-rw-r--r--)",
        "chmod 600",
    ),
    "SF-SECRET-UNREADABLE": ("{name: TOKEN, file: ROOT/none}", "No such file", "ls -lL"),
    "SF-SECRET-MISSING": ("{name: TOKEN, file: ROOT/empty}", "is empty", "write TOKEN into it"),
    "SF-SECRET-COMMAND": (
        "{name: TOKEN, command: 'cat ROOT/token >&2; cat ROOT/token; echo permission denied >&2; exit 2'}",
        "its command ended with status 2: permission denied",
        "log in anew",
    ),
    "SF-SECRET-INVALID": ("{name: TOKEN, command: 'head -c 200000 /dev/zero | tr \\0 x'}", "is longer than", "stored"),
}


@pytest.mark.parametrize("code", TROUBLES)
def test_what_can_not_be_read_is_refused_with_a_code_before_anything_is_touched(code: str, project: Project) -> None:
    put(project.folder.parent / "open", OLD, 0o644)
    put(project.folder.parent / "empty", "")
    secrets, message, hint = TROUBLES[code]
    configure(project, secrets)
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 3, done.stderr
    assert f"error[{code}]" in done.stderr
    assert message in done.stderr and hint in done.stderr
    assert OLD not in done.stderr + everything(project)
    assert not (project.folder.parent / "seen-1").exists()


def test_a_file_of_another_user_is_refused(project: Project) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: files of other users; run as root")
    os.chown(project.folder.parent / "token", 4101, 4101)
    configure(project, SOURCES["file"])
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 3 and "belongs to user 4101" in done.stderr and "SF-SECRET-EXPOSED" in done.stderr


def test_a_command_that_hangs_is_given_up_and_leaves_nothing(project: Project) -> None:
    configure(project, "{name: TOKEN, command: 'setsid sleep 5017 & sleep 5017', timeout: 500ms}")
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 3 and "was still running after 0.5 s" in done.stderr
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _holds(path, b"sleep\x005017")]


def _holds(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except OSError:
        return False


def test_on_the_way_back_a_vault_that_is_down_keeps_nothing_from_being_put_back(project: Project) -> None:
    configure(project, SOURCES["file"], "rm ROOT/token; exit 1")
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 4, done.stderr
    assert (project.folder.parent / "undone").read_text() == OLD
    assert "undone with ***" in done.stderr
    assert "going on with the value that was read before" in done.stderr


def token(seconds: float) -> str:
    return jwt.encode({"exp": datetime.now(UTC) + timedelta(seconds=seconds)}, "a-key-of-thirty-two-bytes-at-least")


JWT = "secret: {name: TOKEN, format: jwt, warn_before: 0s}"


#: Lets go of a good token for one that expires soon, and says when.
LOGIN = """\
      - name: login
        run: |
          PYTHON -c 'import jwt, time; end = int(time.time()) + 3; open("ROOT/token", "w").write(jwt.encode(
          {"exp": end}, "a-key-of-thirty-two-bytes-at-least")); open("ROOT/end", "w").write(str(end))'
"""
WAIT = "while test $(date +%s) -le $(cat ROOT/end); do sleep 0.2; done; echo 401 Unauthorized; exit 1"


def login_first(project: Project, attempts: str) -> None:
    login = LOGIN.replace("PYTHON", sys.executable).replace("ROOT", str(project.folder.parent))
    text = project.config.read_text().replace("    steps:\n", f"    steps:\n{login}")
    project.config.write_text(text.replace("{attempts: 2, delay: 100ms", attempts))


def test_a_secret_that_expires_in_mid_deploy_is_what_the_failure_names(project: Project) -> None:
    put(project.folder.parent / "token", token(3600))
    configure(project, SOURCES["file"], WAIT, JWT)
    login_first(project, "{attempts: 1, delay: 0s")
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 4, done.stderr
    reason = project.json("show", "prod-1")["reason"]
    assert reason["code"] == "SF-SECRET-EXPIRED"
    assert reason["message"].startswith("TOKEN is a token that expired ")
    assert "renew it" in reason["hint"]


def events(project: Project) -> list[dict[str, Any]]:
    return [json.loads(line) for line in project.run("events", "prod-1", "--output", "json").stdout.splitlines()]


def test_a_secret_that_has_expired_lets_the_next_attempt_succeed_once_it_is_renewed(project: Project) -> None:
    root = project.folder.parent
    put(root / "token", token(3600))
    configure(project, SOURCES["file"], f"test -e ROOT/renewed || {{ {WAIT}; }}", JWT)
    login_first(project, "{attempts: 300, delay: 200ms")
    deploy = project.start("deploy", "prod", "1.0")
    eventually(lambda: (root / "end").exists() and any(_expired(event) for event in events(project)))
    put(root / "fresh", token(3600))
    (root / "renewed").touch()
    (root / "fresh").rename(root / "token")
    assert deploy.wait(DEADLINE) == 0


def _expired(event: dict[str, Any]) -> bool:
    return event["type"] == "step_failed" and event["data"]["failure"]["code"] == "SF-SECRET-EXPIRED"


def git(folder: Path, *args: str) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.invalid", "-C", str(folder))
    subprocess.run(["git", *who, *args], check=True, capture_output=True, env=env)


SPOKEN = """\
project: shop
secrets: [CANARY_PLAIN, {name: CANARY_WORDS, file: ROOT/words}, {name: O, env: CANARY_URL}]
environments:
  prod:
    approvals: {from: [anyone]}
    steps: [{name: use, run: 'test ! -e ROOT/stuck', undo: {run: 'test ! -e ROOT/stuck'}}]
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""


def test_what_people_say_is_written_down_without_secrets_in_whatever_form(project: Project) -> None:
    root = project.folder.parent
    project.config.write_text(SPOKEN.replace("ROOT", str(root)))
    values = {name: value for name, value in birds.canaries("").items() if name in SPOKEN}
    assert len(values) == 3
    put(root / "words", values["CANARY_WORDS"])
    project.env |= {name: value for name, value in values.items() if name != "CANARY_WORDS"}
    printable = [
        text.replace("\n", " ")
        for name, value in values.items()
        for core in birds.cores(name, value)
        for form in birds.FORMS
        if "UTF-16" not in form and "\0" not in (text := birds.printed(form, core).decode())
    ]
    reason = " | ".join(["because of", *printable, "was it"])
    git(project.folder, "init", "-q", "-b", f"fix-{values['CANARY_PLAIN']}")
    git(project.folder, "add", ".")
    git(project.folder, "commit", "-q", "-m", "One")
    ref = {"GITHUB_REF": f"refs/heads/fix-{values['CANARY_PLAIN']}"}

    def say(*args: str, by: str = "ann") -> int:
        done = project.run(*args, "--reason", reason, USER=by, **ref)
        said.append(done.stdout + done.stderr)
        return done.returncode

    said: list[str] = []
    assert say("deploy", "prod", "1.0", "--detach") == 0, said
    assert say("approve", "prod-1", by="bob") == 0
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    for text in printable[:: len(printable) // 20]:  # so many are named
        git(project.folder, "commit", "-q", "--allow-empty", "-m", f"{text} is out")
    project.config.write_text(project.config.read_text() + "# touched\n")
    git(project.folder, "commit", "-qa", "-m", f"Take {values['CANARY_PLAIN']} out")
    (root / "stuck").touch()
    assert say("deploy", "prod", "2.0", "--detach") == 0
    assert say("approve", "prod-2", by="bob") == 0
    eventually(lambda: project.status_of("prod-2") == "stranded")
    assert say("resolve", "prod-2", "--unchecked", "--version", "1.0") == 0
    for number, verb in ((3, "reject"), (4, "cancel")):
        assert project.run("deploy", "prod", "3.0", "--detach").returncode == 0
        assert say(verb, f"prod-{number}", by="bob") == 0
    assert say("freeze", "prod") == 0
    assert say("unfreeze", "prod") == 0
    changes = json.loads(project.run("events", "prod-2", "--output", "json").stdout.splitlines()[0])["data"]["origin"]
    assert changes["changes"][0]["subject"] == "Take *** out"
    assert changes["ref"] == "refs/heads/fix-***"
    journals = ("prod", "prod-1", "prod-2", "prod-3", "prod-4")
    told = [project.run("events", name, "--output", "json").stdout for name in journals]
    assert sum(text.count("because of") for text in told) >= 9, "it was said"
    files = [path.read_bytes() for path in (project.folder / ".surefoot").rglob("*") if path.is_file()]
    assert birds.found_in("".join([*said, *told]).encode() + b"".join(files), birds.feathers(values)) == []


def test_a_secret_in_the_files_of_the_project_is_warned_of(project: Project) -> None:
    (project.folder / "settings.env").write_text(f"A=b\nTOKEN={OLD}\n")
    configure(project, SOURCES["file"], "true")
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 0
    assert "the value of TOKEN is in settings.env" in done.stderr
    assert OLD not in done.stderr + project.run("logs", "prod-1").stdout


def test_an_address_that_is_told_is_opened_by_a_secret_from_a_command(project: Project, tmp_path: Path) -> None:
    from tests.e2e.test_telling import Hook

    hook = Hook()
    try:
        (project.folder / "address.txt").write_text("hooks/7\n")
        configure(project, "{name: HOOK_PATH, command: [cat, address.txt]}", "true")
        text = project.config.read_text()
        notify = f'notify:\n  - {{webhook: "{hook.url}/${{HOOK_PATH}}", on: [succeeded]}}\n'
        project.config.write_text(notify + text)
        assert project.run("deploy", "prod", "1.0", NO_PROXY="*").returncode == 0
        assert [told["path"] for told in hook.taken] == ["/hooks/7"]
    finally:
        hook.server.shutdown()
        hook.server.server_close()


def test_a_secret_may_have_another_name_in_the_agent_s_environment(project: Project) -> None:
    configure(project, "{name: TOKEN, env: OTHER}", 'printf %s "$TOKEN" > ROOT/seen-1')
    assert project.run("deploy", "prod", "1.0", OTHER=NEW).returncode == 0
    assert seen(project, 1) == NEW
    assert "OTHER not set in the environment" in project.run("deploy", "prod", "1.0").stderr
