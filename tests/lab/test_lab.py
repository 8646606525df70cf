# SPDX-License-Identifier: Apache-2.0
"""Each fault of the lab does what it says, as hosts see it, and no lab leaves a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from surefoot.drills.lab import Direction, Host, Lab, PostgresPair
from surefoot.drills.lab.ground import FOLDERS, sweep
from surefoot.drills.lab.need import cgroups

PATIENCE = 60.0


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"did not come true in {PATIENCE:.0f} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[tuple[Host, Host]]:
    one, two = lab.add("one"), lab.add("two")
    lab.add("three")
    lab.power_on()
    yield one, two


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "pair" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        lab.network.heal()
        for host in lab.hosts.values():
            host.thaw()
            host.disk.free()
            if not host.is_on:
                host.power_on()


def reaches(host: Host, other: Host) -> bool:
    """Whether a connection comes about."""
    script = "timeout 1 bash -c 'exec 3<>/dev/tcp/$0/22' \"$1\" 2>/dev/null && echo yes || true"
    return host.sh(script, other.address) == "yes\n"


# -- hosts ------------------------------------------------------------------------------------------------------------


def test_a_host_has_its_own_name_address_processes_and_systemd(pair: tuple[Host, Host]) -> None:
    one, two = pair
    assert one.sh("hostname").strip() == "one"
    assert one.sh("cat /proc/1/comm").strip() == "systemd"
    assert one.address in one.sh("ip -4 address")
    assert one.address != two.address
    assert len(one.sh("ps -e -o pid=").split()) < 20


def test_hosts_know_each_other_by_name_and_reach_each_other(pair: tuple[Host, Host]) -> None:
    one, two = pair
    assert two.address in one.sh("getent hosts two")
    until(lambda: reaches(one, two), "the line carries")


def test_what_a_host_writes_is_neither_on_the_machine_nor_on_another_host(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.sh(
        "echo mine >/etc/of-one; echo mine >/var/lib/of-one; echo mine >/tmp/of-one-surefoot-lab; echo x >/srv/of-one"
    )
    for path in ("/etc/of-one", "/var/lib/of-one", "/tmp/of-one-surefoot-lab", "/srv/of-one"):
        assert not Path(path).exists()
        assert two.sh(f"cat {path}", check=False) == ""
    assert one.disk.read("/etc/of-one") == "mine\n"


def test_a_host_can_not_change_the_machines_settings(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    before = Path("/proc/sys/vm/swappiness").read_text()
    one.sh("echo 1 >/proc/sys/vm/swappiness", check=False)
    assert Path("/proc/sys/vm/swappiness").read_text() == before


def test_hardened_services_run_and_are_restarted(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    one.unit(
        "hard",
        "[Service]\nDynamicUser=yes\nProtectSystem=strict\nRestart=always\nRestartSec=10ms\nExecStart=sleep 999\n",
    )
    one.systemctl("start", "hard")
    first = one.main_pid("hard")
    assert one.sh(f"stat -c %U /proc/{first}").strip() == "hard"
    one.kill("hard")
    until(lambda: one.main_pid("hard") not in (0, first), "systemd has started it again")


def test_the_black_box_has_every_command_that_came_by_ssh(lab: Lab, pair: tuple[Host, Host], tmp_path: Path) -> None:
    one, _ = pair
    key, known = tmp_path / "key", tmp_path / "known"
    key.write_text(lab.private_key)
    key.chmod(0o600)
    known.write_text(lab.known_hosts())
    ssh = ["ssh", "-F/dev/null", f"-oUserKnownHostsFile={known}", "-oStrictHostKeyChecking=yes", f"-i{key}"]
    done = subprocess.run([*ssh, f"root@{one.address}", "cat; exit 3"], input=b"hello", capture_output=True)
    assert (done.returncode, done.stdout) == (3, b"hello"), done.stderr
    last = one.commands()[-1]
    assert (last.source, last.code, last.token) == (lab.network.machine.address, 3, None)
    assert last.end is not None and last.begin <= last.end <= time.time()


# -- power ------------------------------------------------------------------------------------------------------------


def test_power_off_ends_every_process_at_once_and_keeps_the_disk(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.sh("echo kept >/var/lib/kept")
    one.unit("enabled", "[Service]\nExecStart=sleep 999\n")
    init = one.pid()
    one.power_off()
    until(lambda: not Path(f"/proc/{init}").exists(), "its first process is buried")
    assert not reaches(two, one)
    one.power_on()
    assert one.sh("cat /var/lib/kept") == "kept\n"
    until(lambda: reaches(two, one), "the line carries")
    until(lambda: one.active("enabled"), "an enabled service is started with its host")


def test_nobody_is_told_of_a_power_off(lab: Lab, pair: tuple[Host, Host]) -> None:
    one, two = pair
    two.unit(
        "held", f"[Service]\nExecStart=bash -c 'exec 3<>/dev/tcp/{one.address}/22; read -r _ <&3; read -r _ <&3'\n"
    )
    two.systemctl("start", "held")
    until(lambda: "ESTAB" in two.sh(f"ss -Htn dst {one.address}"), "the connection stands")
    one.power_off()
    time.sleep(0.5)
    assert two.active("held"), "the end of a connection got out of a host without power"


def test_a_frozen_host_does_nothing_and_goes_on_when_it_is_thawed(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    one.unit("ticking", "[Service]\nExecStart=sh -c 'while sleep 0.02; do date +%%s.%%N >/var/lib/tick; done'\n")
    one.systemctl("start", "ticking")
    until(lambda: one.disk.read("/var/lib/tick"), "it ticks")
    one.freeze()
    last = one.disk.read("/var/lib/tick")
    time.sleep(0.5)
    assert one.disk.read("/var/lib/tick") == last
    one.thaw()
    until(lambda: one.disk.read("/var/lib/tick") != last, "it ticks again")


# -- lines ------------------------------------------------------------------------------------------------------------


def test_a_cut_host_reaches_nobody_until_it_is_healed(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.cut()
    assert not reaches(one, two)
    assert not reaches(two, one)
    one.heal()
    until(lambda: reaches(one, two), "the line carries")


def test_two_hosts_can_be_cut_from_each_other_alone(lab: Lab, pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.cut(two)
    assert not reaches(one, two)
    assert not reaches(two, one)
    until(lambda: reaches(one, lab["three"]), "the line carries")
    until(lambda: reaches(two, lab["three"]), "the line carries")


def test_a_line_can_be_cut_in_one_direction(pair: tuple[Host, Host]) -> None:
    one, two = pair
    until(lambda: reaches(one, two), "the line carries")
    one.cut(two, Direction.FROM)
    before = arrived(two), arrived(one)
    send(two, one)
    send(one, two)
    assert arrived(one) > before[1], "what the other host sends still arrives"
    assert arrived(two) == before[0], "what this one sends does not"


def arrived(host: Host) -> int:
    """Return how many packets of `spray` a host has received."""
    return int(host.sh("awk '/^Udp:/ { n = $3 } END { print n }' /proc/net/snmp"))


def send(host: Host, other: Host) -> None:
    """Send some packets that nobody answers."""
    spray(host, other, 3)


def spray(host: Host, other: Host, packets: int, size: int = 1) -> None:
    """Send packets that nobody answers, and wait until they have arrived where they can."""
    script = 'x=$(head -c $2 /dev/zero | tr "\\0" x); for ((i = 0; i < $1; i++)); do echo $x >"/dev/udp/$0/9"; done'
    host.sh('exec bash -c "$@"', script, other.address, str(packets), str(size))
    time.sleep(0.1)


def test_a_lossy_line_loses_some_packets(lab: Lab, pair: tuple[Host, Host]) -> None:
    one, two = pair
    lab.network.lossy(one.plug, 50, direction=Direction.FROM)
    before = arrived(two)
    spray(one, two, 400)
    assert 100 < arrived(two) - before < 300


def test_a_slow_line_carries_less(lab: Lab, pair: tuple[Host, Host]) -> None:
    one, two = pair
    lab.network.slow(one.plug, 50, direction=Direction.FROM)
    before = arrived(two)
    spray(one, two, 1000, size=1000)
    assert 10 < arrived(two) - before < 600


def test_a_fault_of_a_line_outlasts_a_power_cycle(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.cut()
    one.power_off()
    one.power_on()
    assert not reaches(two, one)


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_takes_nothing_until_it_is_freed(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.disk.fill()
    # More than what the host itself may give up meanwhile, such as a file of its journal's.
    assert "No space left" in one.sh("{ head -c 50000000 /dev/zero >/var/lib/more; } 2>&1", check=False)
    assert two.sh("echo x >/var/lib/more && echo ok") == "ok\n"
    one.disk.free()
    assert one.sh("echo x >/var/lib/more && echo ok") == "ok\n"


def test_a_stopped_sshd_takes_no_connections(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.stop_sshd()
    assert not reaches(two, one)
    one.start_sshd()
    until(lambda: reaches(two, one), "the line carries")


def test_a_skewed_clock_is_seen_by_services(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    one.unit("clock", "[Service]\nType=oneshot\nExecStart=sh -c 'date +%%s >/var/lib/clock'\n", enabled=False)
    one.skew("+1h", "clock")
    assert 3000 < int(one.disk.read("/var/lib/clock")) - time.time() < 4000
    one.skew("0", "clock")
    assert abs(int(one.disk.read("/var/lib/clock")) - time.time()) < 120


# -- the store --------------------------------------------------------------------------------------------------------


def test_a_pair_of_servers_loses_nothing_when_its_primary_loses_power(laboratory: None) -> None:
    with Lab() as lab:
        first, second = lab.add("db-01"), lab.add("db-02")
        lab.power_on()
        servers = PostgresPair(first, second)
        servers.set_up("store")
        url = servers.url("store")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("CREATE TABLE t (n int)")
            conn.execute("INSERT INTO t VALUES (1)")
        servers.fail_over()
        with psycopg.connect(url, autocommit=True, connect_timeout=3, target_session_attrs="read-write") as conn:
            conn.execute("INSERT INTO t VALUES (2)")
            assert conn.execute("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (2,)]


# -- no trace ---------------------------------------------------------------------------------------------------------


def traces(name: str, link: str) -> list[str]:
    """Return what there is of a lab on this machine."""
    top = cgroups()
    assert top is not None
    found = [str(path) for path in (top / name, FOLDERS / name, Path("/sys/class/net") / link) if path.exists()]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (entry / "cmdline").read_bytes() or name in (entry / "cgroup").read_text():
                found.append((entry / "stat").read_text() + (entry / "cgroup").read_text())
        except OSError:
            continue
    return found


def test_a_lab_that_was_taken_down_leaves_no_trace(laboratory: None) -> None:
    with Lab() as lab:
        name, link = lab.ground.name, lab.ground.link
        lab.add("one")
        lab.add("two")
        lab.power_on()
        lab["one"].freeze()
        lab["two"].cut()
        assert traces(name, link)
    assert traces(name, link) == []


HOLDER = """
import subprocess, time
from surefoot.drills.lab import Lab
lab = Lab()
lab.add("one"); lab.power_on(); lab["one"].freeze()
subprocess.Popen(lab.ground.leashed("sh", "-c", "sleep 599; true", lab.ground.name), start_new_session=True)
print(lab.ground.name, lab.ground.link, lab.ground.guardian, flush=True)
time.sleep(600)
"""


@pytest.fixture
def held(laboratory: None) -> Iterator[tuple[subprocess.Popen[str], str, str, int]]:
    """A lab that another process holds."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        name, link, guardian = holder.stdout.readline().split()
        yield holder, name, link, int(guardian)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_lab_whose_holder_is_killed_leaves_no_trace(held: tuple[subprocess.Popen[str], str, str, int]) -> None:
    holder, name, link, _ = held
    assert traces(name, link)
    holder.kill()
    until(lambda: not traces(name, link), "nothing is left of it")


def test_a_lab_whose_guardian_is_killed_too_is_ended_by_the_kernel_and_swept_by_the_next(
    held: tuple[subprocess.Popen[str], str, str, int],
) -> None:
    holder, name, link, guardian = held
    os.kill(guardian, signal.SIGKILL)
    holder.kill()
    top = cgroups()
    assert top is not None
    until(lambda: sweep(top) or not traces(name, link), "nothing is left of it")


def test_labs_side_by_side_do_not_meet(laboratory: None) -> None:
    with Lab() as a, Lab() as b:
        for lab in (a, b):
            lab.add("one")
            lab.power_on()
        assert a.ground.subnet != b.ground.subnet
        assert not reaches(a["one"], b["one"])
        a["one"].power_off()
        assert b["one"].sh("echo well") == "well\n"
