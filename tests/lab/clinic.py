# SPDX-License-Identifier: Apache-2.0
"""A production whose parts can all be broken: two runners with agents under systemd, two web hosts that are deployed to
as a plain user who may `sudo`, PostgreSQL, a registry that wants a login, and a Prometheus. 1.0 runs on both web hosts.
"""

from __future__ import annotations

import base64
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from surefoot.drills.lab import Host, Lab
from surefoot.drills.lab.postgres import Server
from tests.support.images import HTPASSWD, PASSWORD, USER, Images, basic_header

FOLDER, ENVIRONMENT, AGENT = "/srv/shop", "/etc/surefoot-agent/environment", "surefoot-agent"
PRIMARY, SECONDARY = "production-runner-01", "production-runner-02"
WEB, DATABASE, TOOLS = ("web-01", "web-02"), "db-01", "tools-01"
STORE = f"postgresql://surefoot@{DATABASE}/surefoot"
#: Seconds for anything that is waited for, and that a doctor has who is asked what took longer than it should.
LONG = 300.0
DAY = 86400.0
VERSIONS = ("1.0", "2.0", "slow-1", "ill-1")

CONFIG = f"""\
project: shop
secrets: [RELEASE_TOKEN, SIGNING_CERTIFICATE, REGISTRY_PASSWORD]
agents:
  {PRIMARY}: {{role: primary}}
  {SECONDARY}: {{role: secondary}}
  emergency: {{role: emergency}}
lease: {{ttl: 5s}}
environments:
  production:
    inventory: production.ini
    state_file: /var/lib/shop.json
    preflight:
      - secret: {{name: RELEASE_TOKEN, format: jwt}}
      - secret: {{name: SIGNING_CERTIFICATE, format: pem-certificate}}
      - file: {{path: "/srv/releases/{{version}}.tar.gz"}}
      - image:
          ref: "{TOOLS}:5000/shop:{{version}}"
          username: {USER}
          password: "${{REGISTRY_PASSWORD}}"
          insecure: true
      - prometheus: {{url: "http://{TOOLS}:9090", query: 'vector(1)', equals: 1}}
    steps:
      - {{name: activate, playbook: activate.yml, undo: {{playbook: activate.yml}}}}
      - {{name: warm, run: "case $SUREFOOT_VERSION in slow*) exec sleep 1000;; esac", retry: {{timeout: 60s}}}}
    retry: {{attempts: 1, delay: 0s, timeout: 200s}}
    health:
      - http: {{url: "http://{{host}}:8080/", status: 200}}
    health_policy: {{within: 60s, interval: 1s, successes: 1}}
"""
#: `ill-…` does not answer once it is there; where there is a file no-way-back, nothing can be put back.
_PLAYBOOK = """\
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.raw: systemctl restart shop
    - ansible.builtin.raw: systemctl stop shop
      when: surefoot_direction == 'forward' and surefoot_version is match('ill-')
    - ansible.builtin.raw: test ! -e /srv/no-way-back
      when: surefoot_direction == 'undo'
"""
_SHOP = "[Service]\nExecStart=/usr/bin/python3 -m http.server 8080 --directory /srv/shop-web\n"
_AGENT_UNIT = """\
[Unit]
StartLimitIntervalSec=0
[Service]
WorkingDirectory={folder}
EnvironmentFile={environment}
Environment=PATH={path} HOME=/root PYTHONPATH={source} LC_ALL=C.UTF-8
ExecStart={python} -m surefoot agent run {name} --role {role}
KillMode=mixed
"""
_REGISTRY = {
    "version": 0.1,
    "log": {"level": "error", "accesslog": {"disabled": True}},
    "storage": {"filesystem": {"rootdirectory": "/srv/images"}},
    "http": {"addr": "0.0.0.0:5000", "secret": "x"},
    "auth": {"htpasswd": {"realm": "shop", "path": "/etc/registry-users"}},
}


def token(seconds: float) -> str:
    """A token that expires in so many seconds."""
    parts = ({"alg": "HS256"}, {"exp": int(time.time() + seconds)}, {"not": "signed"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


def certificate(seconds: float) -> str:
    """A certificate that expires in so many seconds."""
    from datetime import UTC, datetime, timedelta

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, end - timedelta(days=90), end)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Report:
    """What doctor said, as a program reads it."""

    findings: list[dict[str, Any]]
    unchecked: list[dict[str, str]]
    healthy: bool
    seconds: float

    @property
    def rules(self) -> list[str]:
        return [finding["rule"] for finding in self.findings]

    def place(self, rule: str, words: str = "") -> int | None:
        """Return which finding, from 1, is of that rule and has those words in its title."""
        for number, finding in enumerate(self.findings, start=1):
            if finding["rule"] == rule and words in finding["title"]:
                return number
        return None


class Clinic:
    """See the module's docstring."""

    def __init__(self, lab: Lab, patience: str = "60s") -> None:
        self.lab = lab
        self.patience = patience
        self.path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.source = ":".join(p for p in sys.path if p)
        self.secrets = self.good_secrets()
        for name in (PRIMARY, SECONDARY, *WEB, DATABASE, TOOLS):
            lab.add(name)
        for name in (PRIMARY, SECONDARY):
            self._lay_out_runner(lab[name])
        lab.power_on()
        self.database = Server(lab[DATABASE])
        self.database.set_up()
        self.database.sql("CREATE ROLE surefoot LOGIN")
        self.database.sql("CREATE DATABASE surefoot OWNER surefoot")
        self._set_up_tools(lab[TOOLS])
        for host in self.web:
            self._set_up_web(host)
        for name, role in ((PRIMARY, "primary"), (SECONDARY, "secondary")):
            self._set_up_agent(lab[name], role)
        self.start_agents()
        self.run("surefoot deploy production 1.0")

    # -- setting up ------------------------------------------------------------------------------------------------

    @staticmethod
    def good_secrets() -> dict[str, str]:
        return {
            "RELEASE_TOKEN": token(60 * DAY),
            "SIGNING_CERTIFICATE": certificate(60 * DAY),
            "REGISTRY_PASSWORD": PASSWORD,
        }

    def _lay_out_runner(self, host: Host) -> None:
        disk = host.disk
        disk.write("root/.ssh/id_ed25519", self.lab.private_key, mode=0o600)
        disk.write("root/.ssh/known_hosts", self.lab.known_hosts())
        disk.write("srv/shop/surefoot.yml", CONFIG)
        disk.write("srv/shop/activate.yml", _PLAYBOOK)
        hosts = "\n".join(WEB)
        more = "ansible_user=deploy\nansible_become=true\nansible_python_interpreter=/usr/bin/python3\n"
        disk.write("srv/shop/production.ini", f"[all]\n{hosts}\n[all:vars]\n{more}")
        for version in VERSIONS:
            disk.write(f"srv/releases/{version}.tar.gz", version)

    def _set_up_tools(self, host: Host) -> None:
        host.write("/etc/registry.yml", json.dumps(_REGISTRY))
        host.write("/etc/registry-users", HTPASSWD)
        host.unit("registry", "[Service]\nExecStart=/usr/bin/docker-registry serve /etc/registry.yml\n")
        host.write("/etc/prometheus.yml", "{}\n")
        options = "--config.file=/etc/prometheus.yml --storage.tsdb.path=/srv/prometheus --log.level=error"
        host.unit("prometheus", f"[Service]\nExecStart=/usr/bin/prometheus {options}\n")
        host.systemctl("start", "registry", "prometheus")
        images = Images(f"{host.address}:5000", pushes=basic_header())
        until(lambda: "401" in self._registry_says(host), "the registry answers")
        for version in VERSIONS:
            images.push(f"shop:{version}")

    @staticmethod
    def _registry_says(host: Host) -> str:
        return host.sh(
            "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:5000/v2/\")' 2>&1", check=False
        )

    def _set_up_web(self, host: Host) -> None:
        host.sh("useradd --create-home --shell /bin/sh deploy && usermod -p '*' deploy && mkdir -p /srv/shop-web")
        self.let_sudo(host)
        host.unit("shop", _SHOP)
        # What a Debian host calls its sshd.
        host.sh("ln -s /etc/systemd/system/lab-ssh.service /etc/systemd/system/ssh.service && systemctl daemon-reload")
        host.systemctl("start", "shop")

    @staticmethod
    def let_sudo(host: Host) -> None:
        host.write("/etc/sudoers.d/deploy", "deploy ALL=(ALL) NOPASSWD: ALL\n", 0o440)

    def _set_up_agent(self, host: Host, role: str) -> None:
        self.write_secrets(host)
        fill = {"folder": FOLDER, "environment": ENVIRONMENT, "path": self.path, "source": self.source}
        host.unit(AGENT, _AGENT_UNIT.format(**fill, python=sys.executable, name=host.name, role=role))

    def write_secrets(self, host: Host, **changes: str | None) -> None:
        """Write an agent's environment file; what is None is left out."""
        values = {"SUREFOOT_STORE": STORE, **self.secrets, **changes}
        text = "".join(f'{name}="{value}"\n' for name, value in values.items() if value is not None)
        host.write(ENVIRONMENT, text, 0o600)

    # -- its parts -------------------------------------------------------------------------------------------------

    @property
    def runner(self) -> Host:
        return self.lab[PRIMARY]

    @property
    def second(self) -> Host:
        return self.lab[SECONDARY]

    @property
    def web(self) -> tuple[Host, ...]:
        return tuple(self.lab[name] for name in WEB)

    @property
    def tools(self) -> Host:
        return self.lab[TOOLS]

    def start_agents(self) -> None:
        for host in (self.runner, self.second):
            host.systemctl("start", AGENT)
        until(lambda: self.run("surefoot agents").count(" online ") == 2, "both agents are online")

    # -- what is typed ---------------------------------------------------------------------------------------------

    def run(self, script: str, *, on: Host | None = None, check: bool = True, prefix: str = "") -> str:
        """Run what somebody types on a runner, in the project's folder, with the agent's environment."""
        return self.plain(f"cd {FOLDER}; set -a; . {ENVIRONMENT}; set +a\n{script}", on=on, check=check, prefix=prefix)

    def plain(
        self, script: str, *, folder: str = "/", on: Host | None = None, check: bool = True, prefix: str = ""
    ) -> str:
        """Run what somebody types on a runner who has just logged in."""
        python = f"exec {prefix}{sys.executable} -m surefoot"
        program = f'surefoot() {{ env PYTHONPATH="{self.source}" PATH="{self.path}" sh -c \'{python} "$@"\' sh "$@"; }}'
        return (on or self.runner).sh(f"cd {folder}; {program}\n{script}", check=check, timeout=LONG)

    def doctor(self, *words: str, on: Host | None = None, prefix: str = "") -> Report:
        """Ask doctor, who has more time than by default where the machine has other things to do."""
        command = shlex.join(("doctor", "--output", "json", "--timeout", self.patience, *words))
        said = json.loads(self.run(f"surefoot {command}", on=on, prefix=prefix))
        return Report(said["findings"], said["unchecked"], said["healthy"], said["duration_seconds"])

    def settle(self) -> None:
        """Wait until nothing is deployed any more."""
        until(self._idle, "every deployment has ended")

    def _idle(self) -> bool:
        said = json.loads(self.run("surefoot status --output json"))
        return not any(one["running"] or one["queue"] for one in said["environments"])


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end, f"did not come true in {LONG:.0f} s: {what}"
        time.sleep(0.3)
