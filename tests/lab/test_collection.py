# SPDX-License-Identifier: Apache-2.0
"""The collection surefoot.platform on hosts with a real systemd: deployed, looked at, deployed again, taken away."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from surefoot.drills.lab import Host, Lab
from tests.monitoring.support import until
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: Where this checkout is, and what it needs.
PATHS = (str(ROOT / "src"), sysconfig.get_path("purelib"))
PLAYBOOKS = ROOT / "examples" / "paws360" / "infrastructure" / "ansible" / "playbooks"
PROGRAM = str(BIN / "surefoot")
#: Where the program is on the runner: services may not look into the home that this Python may be in.
INSTALLED = "/opt/surefoot/bin/surefoot"
LISTENER = "[Service]\nExecStart=/bin/sleep infinity\n"
FORWARD = """
import asyncio, sys
async def pipe(r, w):
    while data := await r.read(65536):
        w.write(data); await w.drain()
    w.close()
async def one(r, w):
    r2, w2 = await asyncio.open_connection('127.0.0.1', int(sys.argv[2]))
    await asyncio.gather(pipe(r, w2), pipe(r2, w), return_exceptions=True)
async def main():
    server = await asyncio.start_server(one, sys.argv[1], 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
PROJECT = """\
project: p
agents: {runner: {role: primary}}
environments: {prod: {steps: [{name: only, run: 'id -un > made-by; cat made-by'}]}}
"""


@dataclass
class Site:
    """A runner, a monitoring host, and what runs playbooks against them."""

    folder: Path
    runner: Host
    monitor: Host
    store: str
    sockets: str  #: where connections are kept for the next task; paths in it have to be short

    def play(self, playbook: Path, *more: str, check: bool = False) -> int:
        """Run a playbook; return how many tasks changed something. It must not fail."""
        command = [
            str(BIN / "ansible-playbook"),
            "-i",
            "inventory.yml",
            str(playbook),
            *more,
            *(["--check"] if check else []),
        ]
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SUREFOOT_"))},
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self.sockets,
        }
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, env=environ)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:] + self.runner.journal()[-3000:]
        recap = done.stdout.rpartition("PLAY RECAP")[2]
        return sum(int(count) for count in re.findall(r"changed=(\d+)", recap))

    def role(self, role: str, hosts: str, **variables: Any) -> Path:
        """Write a playbook of one role."""
        play = {"hosts": hosts, "gather_facts": False, "tasks": [
            {"ansible.builtin.import_role": {"name": f"surefoot.platform.{role}"}, "vars": variables}
        ]}  # fmt: skip
        path = self.folder / f"{role}.yml"
        path.write_text(yaml.safe_dump([play]))
        return path


def wrapper() -> str:
    """A program that runs this checkout by the system's own Python, if it is of the same version."""
    python = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not python.exists():
        pytest.skip(f"there is no {python} that a confined service could run")
    return f'#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH={":".join(PATHS)} exec {python} -m surefoot "$@"\n'


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    runner, monitor = lab.add("runner"), lab.add("monitor")
    lab.power_on()
    runner.write(INSTALLED, wrapper(), 0o755)
    if str(ROOT).startswith("/tmp/"):  # of which a confined service has one of its own
        seen = f"[Service]\nBindReadOnlyPaths={' '.join(PATHS)}\n"
        runner.write("/etc/systemd/system/surefoot-.service.d/seen.conf", seen)
    key = folder / "key"
    key.write_text(lab.private_key)
    key.chmod(0o600)
    (folder / "known_hosts").write_text(lab.known_hosts())
    (folder / "surefoot.yml").write_text(PROJECT)
    (folder / "ansible.cfg").write_text("[ssh_connection]\npipelining = true\n[defaults]\nforks = 4\n")
    ssh = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder / 'known_hosts'}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {
        "runners": {"hosts": {"runner": {"ansible_host": runner.address, **ssh}}},
        "prometheus": {"hosts": {"monitor": {"ansible_host": monitor.address, **ssh}}},
        "grafana": {"hosts": {"localhost": local}},
    }
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    packed = folder / "packed"
    for command in (
        ["collection", "build", str(ROOT / "ansible"), "--output-path", str(packed)],
        ["collection", "install", "--offline", "-p", str(folder / "collections"), "PACKED"],
    ):
        filled = [str(next(packed.glob("*.tar.gz"))) if word == "PACKED" else word for word in command]
        home = {**os.environ, "ANSIBLE_HOME": str(folder / "home")}
        subprocess.run([str(BIN / "ansible-galaxy"), *filled], check=True, capture_output=True, timeout=120, env=home)
    with tempfile.TemporaryDirectory(prefix="sf-") as sockets, PostgresServer() as server:
        command = [sys.executable, "-c", FORWARD, lab.network.machine.address, str(server.port)]
        forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert forward.stdout is not None
            port = int(forward.stdout.readline())
            url = server.new_database().replace(f"127.0.0.1:{server.port}", f"{lab.network.machine.address}:{port}")
            yield Site(folder, runner, monitor, url, sockets)
        finally:
            forward.kill()
            forward.wait()


def exposure(host: Host, unit: str) -> float:
    """What systemd thinks of a service's confinement: 0 is best, 10 is none."""
    said = host.sh(f"systemd-analyze security --no-pager {unit} | tail -3")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


def metrics(host: Host) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host.address}:9100/metrics", timeout=60) as response:
        text: str = response.read().decode()
        return text


def entries(host: Host, unit: str, *matches: str) -> list[dict[str, str]]:
    """What systemd's journal has of a unit."""
    text = host.sh(f"journalctl --no-pager -u {unit} -o json {' '.join(matches)}")
    return [json.loads(line) for line in text.splitlines()]


def test_the_agent_is_deployed_and_deploys(site: Site) -> None:
    """First, so that the store is made by one who may write it; the exporter only reads."""
    site.runner.write("/srv/project/surefoot.yml", PROJECT)
    site.runner.sh("useradd --system surefoot; chown -R surefoot: /srv/project")
    told = {
        "agent_install": False,
        "agent_program": INSTALLED,
        "agent_store": site.store,
        "agent_project": "/srv/project",
    }
    agent = site.role("agent", "runners", **told)
    assert site.play(agent) > 0
    assert site.play(agent) == 0
    command = [PROGRAM, "--config", str(site.folder / "surefoot.yml"), "--store", site.store, "deploy", "prod", "1.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=site.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = subprocess.run([*command[:5], "logs", "prod-1"], capture_output=True, text=True, timeout=60)
    assert "surefoot" in shown.stdout.split()
    assert exposure(site.runner, "surefoot-agent.service") <= 3.5
    found = entries(site.runner, "surefoot-agent", "SUREFOOT_DEPLOYMENT=prod-1")
    types = [entry["SUREFOOT_TYPE"] for entry in found]
    assert types[0] == "lease_granted" and types[-1] == "finished"
    assert {entry["SUREFOOT_TOKEN"] for entry in found} == {"1"}
    assert {entry["SUREFOOT_ENVIRONMENT"] for entry in found} == {"prod"}
    assert {entry["SUREFOOT_AGENT"] for entry in found} == {"runner"}
    assert {entry["SYSLOG_IDENTIFIER"] for entry in found} == {"surefoot-agent"}
    assert {entry["PRIORITY"] for entry in found} == {"6"}
    assert found[-1]["MESSAGE"] == "prod-1 token 1: succeeded"
    site.play(site.role("agent", "runners", **told, agent_state="absent"))
    assert not site.runner.active("surefoot-agent")
    assert "handed" not in done.stderr


def test_the_exporter_is_deployed_by_the_playbook_confined_and_taken_away(site: Site) -> None:
    site.runner.unit("actions.runner.paws360.runner", LISTENER)
    site.runner.systemctl("start", "actions.runner.paws360.runner")
    told = ["-e", json.dumps({"exporter_install": False, "exporter_program": INSTALLED, "exporter_store": site.store})]
    playbook = PLAYBOOKS / "deploy-runner-monitoring.yml"
    site.play(playbook, *told, check=True)
    assert site.runner.sh("test -e /etc/systemd/system/surefoot-exporter.service && echo there", check=False) == ""
    assert site.play(playbook, *told) > 0
    assert site.play(playbook, *told) == 0
    assert exposure(site.runner, "surefoot-exporter.service") <= 2.0
    begun = entries(site.runner, "surefoot-exporter", "SUREFOOT_TYPE=exporter_started")[-1]
    assert begun["SUREFOOT_RUNNER"] == "runner" and "metrics at" in begun["MESSAGE"]
    assert site.runner.sh("ps -o user= -p $(systemctl show --value -p MainPID surefoot-exporter)").strip() != "root"
    # Its confinement leaves it what it needs: the CI runner's service is asked after, the store is read.
    until(lambda: re.search(r"(?m)^runner_status\{.*\} 1", metrics(site.runner)), "the runner is up")
    assert re.search("(?m)^surefoot_store_up 1", metrics(site.runner))
    site.runner.systemctl("stop", "actions.runner.paws360.runner")
    until(lambda: re.search(r"(?m)^runner_status\{.*\} 0", metrics(site.runner)), "the runner is down")
    # A kill is survived.
    site.runner.kill("surefoot-exporter")
    until(lambda: site.runner.active("surefoot-exporter"), "it is up again")
    exporter = site.role("exporter", "runners", exporter_state="absent")
    assert site.play(exporter) > 0
    assert site.play(exporter) == 0
    assert site.runner.sh("ls -d /etc/surefoot-exporter; getent passwd surefoot-exporter", check=False) == ""


def test_alert_rules_are_deployed_by_the_playbook_and_prometheus_has_them(site: Site) -> None:
    # What another Prometheus has left on this machine's disk is not the host's.
    data = "/var/lib/prometheus/metrics2"
    site.monitor.sh(f"rm -rf {data}; install -d -o prometheus -g prometheus /var/lib/prometheus {data}")
    site.monitor.systemctl("start", "prometheus")
    told = ["-e", json.dumps({
        "surefoot_config": str(site.folder / "surefoot.yml"), "prometheus_rules_surefoot": PROGRAM,
        "prometheus_rules_targets": [f"{site.runner.address}:9100"],
        "prometheus_rules_alertmanager": "/etc/prometheus/alertmanager.yml",
        "prometheus_rules_alertmanager_service": "prometheus-alertmanager.service",
    })]  # fmt: skip
    site.monitor.systemctl("start", "prometheus-alertmanager")
    playbook = PLAYBOOKS / "deploy-prometheus-alerts.yml"
    site.play(playbook, *told, check=True)
    assert site.monitor.sh("ls /etc/prometheus/rules.d", check=False) == ""
    assert site.play(playbook, *told) > 0
    assert site.play(playbook, *told) == 0
    query = "curl -sg 'http://127.0.0.1:9090/api/v1/query?query=up{job=\"surefoot\"}'"
    until(lambda: json.loads(site.monitor.sh(query))["data"]["result"], "Prometheus scrapes the runner", 90)
    routes = site.monitor.sh("curl -s http://127.0.0.1:9093/api/v2/status")
    assert "BothRunnersOffline" in json.loads(routes)["config"]["original"]
    gone = site.role(
        "prometheus_rules", "prometheus", prometheus_rules_state="absent",
        prometheus_rules_config=str(site.folder / "surefoot.yml"),
    )  # fmt: skip
    assert site.play(gone) > 0
    assert site.play(gone) == 0


class Grafana:
    """A stand-in for the part of Grafana's HTTP API that dashboards are put in by: what it is given it must be able to
    find again, with an id and a version of its own.
    """

    def __init__(self, token: str) -> None:
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _known(self) -> bool:
                if self.headers.get("Authorization") == f"Bearer {token}":
                    return True
                self._answer(401, {"message": "Unauthorized"})
                return False

            def do_GET(self) -> None:
                if not self._known():
                    return
                kind, _, uid = self.path.removeprefix("/api/").rpartition("/")
                if kind == "folders" and uid in grafana.folders:
                    self._answer(200, grafana.folders[uid])
                elif kind == "dashboards/uid" and uid in grafana.dashboards:
                    self._answer(200, {"meta": {"folderUid": "surefoot"}, "dashboard": grafana.dashboards[uid]})
                else:
                    self._answer(404, {"message": "not found"})

            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self._known():
                    return
                if self.path == "/api/folders":
                    grafana.folders[said["uid"]] = said
                    self._answer(200, said)
                elif self.path == "/api/dashboards/db" and said["folderUid"] in grafana.folders and said["overwrite"]:
                    one = said["dashboard"]
                    version = grafana.dashboards.get(one["uid"], {}).get("version", 0) + 1
                    grafana.dashboards[one["uid"]] = {**one, "id": 7, "version": version}
                    self._answer(200, {"status": "success", "uid": one["uid"]})
                else:
                    self._answer(400, {"message": "bad request"})

            def do_DELETE(self) -> None:
                if self._known():
                    found = grafana.dashboards.pop(self.path.rpartition("/")[2], None)
                    self._answer(404 if found is None else 200, {"message": "done"})

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_dashboards_are_deployed_by_the_playbook_into_grafana(site: Site) -> None:
    grafana = Grafana("a-token")
    try:
        told = ["-e", json.dumps({
            "grafana_dashboards_surefoot": PROGRAM, "grafana_dashboards_url": grafana.url,
            "grafana_dashboards_token": "a-token",
        })]  # fmt: skip
        playbook = PLAYBOOKS / "deploy-grafana-dashboard.yml"
        assert site.play(playbook, *told) == 3
        assert site.play(playbook, *told) == 0
        assert set(grafana.dashboards) == {"surefoot-runner-health", "surefoot-deployment-pipeline"}
        # What somebody has changed by hand is put right.
        grafana.dashboards["surefoot-runner-health"]["panels"] = []
        assert site.play(playbook, *told) == 1
        gone = site.role(
            "grafana_dashboards", "grafana", grafana_dashboards_state="absent", grafana_dashboards_url=grafana.url,
            grafana_dashboards_token="a-token",
        )  # fmt: skip
        assert site.play(gone) > 0
        assert grafana.dashboards == {}
    finally:
        grafana.close()


def test_dashboards_and_log_forwarding_by_files(site: Site) -> None:
    by_file = {"grafana_dashboards_method": "file", "grafana_dashboards_surefoot": PROGRAM}
    put = site.role("grafana_dashboards", "prometheus", **by_file)
    assert site.play(put) > 0
    assert site.play(put) == 0
    provider = yaml.safe_load(site.monitor.sh("cat /etc/grafana/provisioning/dashboards/surefoot.yml"))
    path = provider["providers"][0]["options"]["path"]
    assert json.loads(site.monitor.sh(f"cat {path}/runner-health.json"))["uid"] == "surefoot-runner-health"
    assert site.play(site.role("grafana_dashboards", "prometheus", **by_file, grafana_dashboards_state="absent")) > 0
    # Alloy is not to be had here: a program of that name stands for it, which takes any file that has an endpoint.
    site.monitor.write("/usr/local/bin/alloy", '#!/bin/sh\n[ "$1" = --version ] || grep -q endpoint "$2"\n', 0o755)
    site.monitor.sh("mkdir -p /etc/alloy")
    site.monitor.unit("alloy", LISTENER)
    logs = {"log_forwarding_loki": "http://loki:3100/loki/api/v1/push", "log_forwarding_labels": {"team": "sre"}}
    forward = site.role("log_forwarding", "prometheus", **logs)
    assert site.play(forward) > 0
    assert site.play(forward) == 0
    text = site.monitor.sh("cat /etc/alloy/surefoot.alloy")
    assert '"_SYSTEMD_UNIT=surefoot-agent.service"' in text and 'team = "sre"' in text
    assert text.count("{") == text.count("}")
    assert '"__journal_surefoot_environment"' in text
    assert site.play(site.role("log_forwarding", "prometheus", log_forwarding_state="absent")) > 0


def test_bad_arguments_are_refused_before_anything_is_done(site: Site) -> None:
    playbook = site.role("exporter", "runners", exporter_role="boss")
    with pytest.raises(AssertionError, match="exporter_role"):
        site.play(playbook)
