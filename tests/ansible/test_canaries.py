# SPDX-License-Identifier: Apache-2.0
"""Canaries: secrets that real deployments print, quote, send and fail of in every way, and then are looked for in all
that these deployments have left. None may be found: see `tests/support/canaries.py` for what counts as one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ansible.hosts import SshHost, inventory
from tests.ansible.play import HIDDEN
from tests.support import canaries as birds
from tests.support.github import GitHubStandIn, github_stand_in

#: In the environment of whatever descends from a deployment: that may know the secrets.
MARK = "CANARIES_MAY_FLY_HERE"
DEADLINE = 600
#: Looks at a process, some 30 ms apart.
YOUNG = 50

CONFIG = """\
project: shop
secrets: [CANARY_PLAIN, CANARY_SIGNS, CANARY_WORDS, CANARY_KEY, CANARY_UMLAUTS, CANARY_URL, CANARY_JSON]
github: {repository: acme/paws360, token: "${CANARY_GITHUB}", api: "GITHUB"}
incidents:
  github: {labels: [production-incident]}
  on: [failed, rolled_back, stranded, cancelled]
notify:
  - {webhook: "HOOK/taken/${CANARY_PLAIN}", on: [accepted, succeeded, failed, rolled_back, stranded]}
  - {webhook: "HOOK/refused/${CANARY_SIGNS}", on: [failed, rolled_back]}
  - {url: "json://CANARY:${CANARY_PLAIN}@ADDRESS/refused", on: [failed, rolled_back]}
environments:
  prod:
    inventory: hosts.ini
    retry: {attempts: 1, delay: 0s, timeout: 100s}
    health_policy: {within: 2s, interval: 500ms, successes: 1}
    steps: [STEPS]
    MORE
"""
RUN = "{name: fly, run: 'python3 canaries.py', undo: {run: 'python3 canaries.py 0'}}"
PLAY = "{name: play, playbook: play.yml, undo: {run: 'python3 canaries.py 0'}}"

#: All ways in which Ansible quotes what it works with; each but the last is rescued.
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  vars:
    names: [CANARY_PLAIN, CANARY_SIGNS, CANARY_WORDS, CANARY_KEY, CANARY_UMLAUTS, CANARY_JSON]
    all_of_them: "{% for name in names %}{{ lookup('env', name) }}|{% endfor %}"
    plain: "{{ lookup('env', 'CANARY_PLAIN') }}"
  tasks:
    - debug: {msg: "{{ lookup('env', item) }} {{ lookup('env', item) | to_json | b64encode }}"}
      loop: "{{ names }}"
    - debug: {var: all_of_them}
    - name: A file, with a diff of its lines
      copy: {dest: "/root/canaries", content: "old\\n{{ all_of_them }}\\n", mode: "0600"}
      diff: true
    - name: A file, changed
      copy: {dest: "/root/canaries", content: "new\\n{{ plain }}\\n", mode: "0600"}
      diff: true
    - name: A program that fails and says why
      command: {argv: [cat, /root/canaries, /root/none]}
      ignore_errors: true
    - name: What must not be logged
      command: {argv: [sh, -c, "cat /root/canaries; cat /root/canaries >&2; exit 1"]}
      no_log: true
      ignore_errors: true
    - name: What must not be logged, in a loop
      fail: {msg: "{{ lookup('env', item) }}"}
      loop: "{{ names }}"
      no_log: true
      ignore_errors: true
    - name: A template that breaks
      debug: {msg: "{{ plain | int / 0 }}{{ (plain | from_json).missing }}"}
      ignore_errors: true
    - name: A module that gets what it does not know
      file: {path: "/root/x", state: "{{ plain }}"}
      ignore_errors: true
    - name: An address with a password
      uri: {url: "http://127.0.0.1:1/{{ plain }}", headers: {Authorization: "Bearer {{ plain }}"}}
      ignore_errors: true
    - file: {path: /root/canaries, state: absent}
    - name: "The end, far into a long message"
      fail: {msg: "{{ 'x' * 577 }} {{ plain }} {{ 'y' * 880 }}{{ plain }}{{ plain }}{{ plain }}"}
"""


class Looker(threading.Thread):
    """Looks, while deployments run, for canaries in the arguments of all processes, and in the environment of those
    that are none of theirs.
    """

    def __init__(self, feathers: set[bytes]) -> None:
        super().__init__(daemon=True)
        self.found: list[tuple[str, list[bytes]]] = []
        self.rounds = 0
        self.ssh = self.playbooks = 0
        self._feathers = feathers
        self._over = threading.Event()
        self._seen: set[bytes] = set()
        self._looks: Counter[str] = Counter()

    def run(self) -> None:
        while not self._over.wait(0.03):
            self.rounds += 1
            for entry in os.scandir("/proc"):
                # Who is not young any more has become all that it will: looking at all, always, takes half a processor.
                if entry.name.isdigit() and self._looks[entry.name] < YOUNG:
                    self._looks[entry.name] += 1
                    with contextlib.suppress(OSError):
                        self._look(Path(entry.path))

    def _look(self, process: Path) -> None:
        arguments = (process / "cmdline").read_bytes()
        if arguments and arguments not in self._seen:
            self._seen.add(arguments)
            self.ssh += arguments.startswith((b"ssh\0", b"/usr/bin/ssh\0"))
            self.playbooks += b"ansible-playbook" in arguments
            self._judge(f"arguments of {process.name}", arguments)
            environ = (process / "environ").read_bytes()
            if MARK.encode() not in environ:
                self._judge(f"environment of {process.name}: {arguments!r}", environ)

    def _judge(self, where: str, data: bytes) -> None:
        if hits := birds.found_in(data, self._feathers):
            self.found.append((where, hits))

    def stop(self) -> None:
        self._over.set()
        self.join(30)


class Echo:
    """A server that gives back what it was asked with: at `/cut` in a place where excerpts are cut off."""

    def __init__(self, values: dict[str, str]) -> None:
        self.bodies: list[bytes] = []
        echo = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                plain = values["CANARY_PLAIN"]
                if self.path.startswith("/moved"):
                    self.send_response(302)
                    self.send_header("Location", f"http://elsewhere.invalid/?token={values['CANARY_PLAIN']}")
                    body = b""
                else:
                    self.send_response(500)
                    body = f"{'x' * 180} {plain} {values['CANARY_SIGNS']}".encode()
                    if self.path.startswith("/json"):
                        body = json.dumps({"status": plain, "more": values["CANARY_SIGNS"]}).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                echo.bodies.append(body)
                self.send_response(404 if "refused" in self.path else 200)
                said = json.dumps({"message": f"{'z' * 185}{self.path} {self.headers['Authorization']}"}).encode()
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Cage:
    """A project that is deployed with canaries in the environment, and all that comes out of it."""

    def __init__(
        self, root: Path, host: SshHost, key: Path, values: dict[str, str], github: GitHubStandIn, echo: Echo
    ) -> None:
        self.folder, self.echo, self.github = root / "shop", echo, github
        self.folder.mkdir()
        self.outputs: dict[str, bytes] = {}
        self.temporary = Path(tempfile.mkdtemp(prefix="sf-"))
        self.summary = root / "summary.md"
        (self.folder / "hosts.ini").write_text(inventory([host], key, root / "known_hosts"))
        (self.folder / "play.yml").write_text(PLAYBOOK)
        shutil.copy(birds.__file__, self.folder / "canaries.py")
        self._env = {k: v for k, v in os.environ.items() if not k.startswith((*HIDDEN, "GITHUB_"))}
        self._env |= {
            **values, MARK: "1", "HOME": str(root), "TMPDIR": str(self.temporary), "NO_PROXY": "*",
            "CANARY_GITHUB": github.token, "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(self.summary),
            "ANSIBLE_VERBOSITY": "4", "SUREFOOT_NAME": "shop",
        }  # fmt: skip

    def configure(self, *steps: str, more: str = "") -> None:
        text = CONFIG.replace("STEPS", ", ".join(steps)).replace("    MORE\n", more)
        text = text.replace('GITHUB"', f'{self.github.url}"').replace("HOOK", f"http://{self.echo.address}")
        (self.folder / "surefoot.yml").write_text(text.replace("ADDRESS", self.echo.address))

    def run(self, *args: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "surefoot", *args],
            cwd=self.folder, env=self._env, capture_output=True, timeout=DEADLINE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.outputs[f"{' '.join(args)} #{len(self.outputs)}"] = done.stdout + done.stderr
        return done.returncode

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Yield all that came out, and all files that are left."""
        yield from self.outputs.items()
        yield (
            "requests to GitHub",
            json.dumps([self.github.issues, self.github.comments, self.github.statuses]).encode(),
        )
        yield from ((f"request {n} to the webhook", body) for n, body in enumerate(self.echo.bodies))
        yield "summary", self.summary.read_bytes()
        for folder in (self.folder, self.temporary, Path(f"/run/surefoot-{os.geteuid()}")):
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    if path.is_file():
                        yield str(path), path.read_bytes()


@pytest.fixture
def values(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "canary"
    subprocess.run(["ssh-keygen", "-qt", "rsa", "-b", "2048", "-N", "", "-f", str(path)], check=True)
    return birds.canaries(path.read_text())


@pytest.fixture
def cage(tmp_path: Path, host: SshHost, key: Path, values: dict[str, str]) -> Iterator[Cage]:
    echo = Echo(values)
    try:
        with github_stand_in(token="ghp_CanaryThatOpensGitHub0123456789") as github:
            yield (one := Cage(tmp_path, host, key, values, github, echo))
            assert github.wrong == []
            shutil.rmtree(one.temporary)
    finally:
        echo.close()


def test_no_canary_is_found_anywhere_after_deployments_that_let_all_of_them_fly(
    cage: Cage, values: dict[str, str]
) -> None:
    feathers = birds.feathers(values)
    looker = Looker(feathers)
    looker.start()
    quick = "run: 'python3 canaries.py 0'"
    try:
        cage.configure(RUN, PLAY)
        assert cage.run("deploy", "prod", "1.0-fail", "-v") == 4, cage.outputs
        steps = f"{{name: noted, {quick}, undo: {{{quick}}}}}"
        step = '{name: x, run: \'set -x; : "$CANARY_SIGNS" "$CANARY_KEY"; python3 canaries.py 3\'}'
        cage.configure(steps, step)
        assert cage.run("deploy", "prod", "2.0-step") == 4
        checks = f"""\
      - http: {{url: "http://{cage.echo.address}/cut"}}
      - http: {{url: "http://{cage.echo.address}/cut?key=${{CANARY_PLAIN}}", headers: {{X-Token: "${{CANARY_PLAIN}}"}}}}
      - http: {{url: "http://{cage.echo.address}/moved"}}
      - http: {{url: "http://{cage.echo.address}/json", status: 500, json: {{status: UP}}}}
      - http: {{url: "http://{cage.echo.address}/json", status: 500, contains: "${{CANARY_URL}}"}}
      - http: {{url: "http://u:${{CANARY_PLAIN}}@127.0.0.1:1/${{CANARY_SIGNS}}"}}
      - http: {{url: "http://${{CANARY_PLAIN}}.invalid/"}}
      - command: {{run: 'python3 canaries.py 1'}}
      - command: {{run: 'printf "%0180d %s" 1 "$CANARY_PLAIN"; exit 1'}}
"""
        cage.configure(steps, more=f"    health:\n{checks}")
        assert cage.run("deploy", "prod", "4.0-health") in (4, 5)
        secrets = "".join(f"      - secret: {{name: {name}, pattern: 'no', format: jwt}}\n" for name in values)
        cage.configure(steps, more=f"    preflight:\n{checks}{secrets}")
        assert cage.run("deploy", "prod", "5.0-preflight") == 3
        probe = "    version_probe: {command: {run: 'python3 canaries.py 1'}}\n"
        cage.configure(steps, more=f"    state_file: /root/state.json\n{probe}")
        assert cage.run("deploy", "prod", "6.0-probe") in (4, 5)
        for command in (("show",), ("events",), ("logs",), ("report", "jira")):
            cage.run(*command, "prod-1", "--output", "json")
        cage.run("agent", "run", "later", "--role", "emergency", "--once", "-v")
    finally:
        looker.stop()
    everything = list(cage.everything())
    printed = b"".join(cage.outputs.values())
    assert printed.count(birds.DONE.encode()) > 10, "they did fly"
    assert printed.count(b"***") > 800
    assert looker.ssh and looker.playbooks and looker.rounds > 100
    assert cage.github.issues and cage.echo.bodies
    found = [(name, hits) for name, data in everything if (hits := birds.found_in(data, feathers))]
    assert found == [], "\n".join(f"{name}: {hits}" for name, hits in found)
    assert looker.found == []
