# SPDX-License-Identifier: Apache-2.0
"""A deploy in a CI job pushes its metrics to a real Pushgateway; one that is away changes nothing."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from pathlib import Path

from tests.monitoring.servers import ready
from tests.support import forked
from tests.support.servers import free_port, program, running

CONFIG = """\
project: p
environments: {prod: {steps: [{name: only, run: "true"}]}}
"""


def deploy(folder: Path, version: str, gateway: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SUREFOOT_PUSHGATEWAY": gateway, "NO_PROXY": "*", "no_proxy": "*"}
    return forked.run(["deploy", "prod", version], cwd=folder, capture_output=True, text=True, timeout=120, env=environ)


def test_each_deploy_pushes_all_figures_so_that_counters_go_on(tmp_path: Path) -> None:
    (tmp_path / "surefoot.yml").write_text(CONFIG)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = (f"--web.listen-address=127.0.0.1:{port}", "--persistence.file=")  # Debian's would write into /var/lib
    with running([program("prometheus-pushgateway"), *options], tmp_path, ready(port)):
        for count in (1, 2):
            assert deploy(tmp_path, f"{count}.0", url).returncode == 0
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{url}/metrics", timeout=60) as response:
                lines = response.read().decode().splitlines()
            (found,) = [line for line in lines if line.startswith("surefoot_deployments_total") and "succeeded" in line]
            assert 'project="p"' in found and found.endswith(f"}} {count}")
    gone = deploy(tmp_path, "3.0", url)
    assert gone.returncode == 0
    assert "the Pushgateway did not take the metrics" in gone.stderr and "Traceback" not in gone.stderr
