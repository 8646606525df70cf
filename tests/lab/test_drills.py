# SPDX-License-Identifier: Apache-2.0
"""A drill, played for real, with its reports; the others are played by `make ci-local` and `surefoot drill --all`."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.support import forked

#: What `tests.support.compiled` has made is of use in the lab of this command, too.
FIRST = "from tests.support import compiled; compiled.use_in_labs()"


def test_a_killed_agents_deployment_is_finished_by_the_other_runner(laboratory: None, tmp_path: Path) -> None:
    report, junit = tmp_path / "drill.md", tmp_path / "drill.xml"
    command = ["drill", "failover-kill", "--output", "json", "--report", str(report), "--junit", str(junit)]
    done = forked.run([*command, "--keep", str(tmp_path / "kept")], first=FIRST, capture_output=True, text=True)
    (drill,) = json.loads(done.stdout)["drills"]
    assert drill["error"] is None, done.stderr
    assert [finding for finding in drill["findings"] if not finding["kept"]] == []
    assert {"exit 0", "all or nothing", "one at a time", "a takeover"} <= {f["promise"] for f in drill["findings"]}
    latency = next(m for m in drill["measures"] if m["name"] == "from the fault to the next task on a host")
    in_time = 0 < latency["value"] <= latency["at_most"]  # which a machine that is busy with other tests may miss
    assert (done.returncode, drill["passed"]) == ((0, True) if in_time else (1, False))
    suite = ET.parse(junit).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == (
        "1",
        "0" if in_time else "1",
        "0",
    )
    assert f"{int(in_time)} of 1 passed" in report.read_text()
