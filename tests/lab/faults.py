# SPDX-License-Identifier: Apache-2.0
"""Faults that are made for real on the hosts of a clinic: what makes each, what takes it away, what doctor must say."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from surefoot.core.deployment import FENCES
from surefoot.drills.lab.host import FAKETIME
from tests.lab.clinic import (
    AGENT,
    DATABASE,
    ENVIRONMENT,
    FOLDER,
    PRIMARY,
    SECONDARY,
    Clinic,
    certificate,
    token,
    until,
)

#: Where a host keeps its fences, of those that a plain user deploys to.
FENCE = "/home/deploy/.surefoot/fence"

FAKE = str(FAKETIME[0]) if FAKETIME else ""

Act = Callable[[Clinic], object]


def nothing(_: Clinic) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """One fault. `make` makes it, `rule` and `words` are what doctor must say of it."""

    name: str
    rule: str
    make: Act
    heal: Act = nothing  #: takes away what was made, whoever has mended what
    words: str = ""  #: in the finding's title
    first: bool = True
    on: str = PRIMARY  #: where doctor is asked
    prefix: str = ""  #: before doctor's own command line
    by_hand: Act | None = None  #: what a person does, where what doctor names is no command


# -- parts of faults -----------------------------------------------------------------------------------------------


def agent(*words: str, on: str = PRIMARY) -> Act:
    """Tell an agent's service something."""
    return lambda clinic: clinic.lab[on].systemctl(*words, AGENT)


def at_work(clinic: Clinic) -> None:
    clinic.start_agents()


def signalled(signal: str, on: str = PRIMARY) -> Act:
    return lambda clinic: clinic.lab[on].kill(AGENT, signal)


def frozen(clinic: Clinic) -> None:
    clinic.runner.kill(AGENT, "STOP")


def thawed(clinic: Clinic) -> None:
    clinic.runner.kill(AGENT, "CONT")
    at_work(clinic)


def secrets(restart: bool = True, **changes: str | None) -> Act:
    """Have the first runner's agent run with other secrets."""

    def act(clinic: Clinic) -> None:
        clinic.write_secrets(clinic.runner, **changes)
        if restart:
            clinic.runner.systemctl("restart", AGENT)
            at_work(clinic)

    return act


def on_host(name: str, script: str) -> Act:
    return lambda clinic: clinic.lab[name].sh(script, timeout=120)


def both(*acts: Act) -> Act:
    def act(clinic: Clinic) -> None:
        for one in acts:
            one(clinic)

    return act


def edited(path: str, script: str, on: str = PRIMARY) -> tuple[Act, Act]:
    """Change a file of a host by sed; and back."""
    kept = f"{path}.kept"
    return on_host(on, f"cp -p {path} {kept}; sed -i {shlex.quote(script)} {path}"), on_host(
        on, f"[ ! -e {kept} ] || {{ cat {kept} >{path}; rm {kept}; }}"
    )


def know_hosts(clinic: Clinic) -> None:
    clinic.runner.write("/root/.ssh/known_hosts", clinic.lab.known_hosts(), 0o600)


def clock(variables: str) -> Act:
    """Have all that comes over SSH to a host see another time."""
    line = f"SetEnv SHLVL=2 {variables}"
    return on_host("web-02", f"sed -i 's|^SetEnv .*|{line}|' /etc/ssh/lab_config; systemctl restart ssh")


def moved(programs: str) -> tuple[Act, Act]:
    """Take programs away from a host; and give them back."""
    away = "/usr/lib/taken-away"
    return on_host("web-02", f"mkdir -p {away} && mv {programs} {away}"), on_host(
        "web-02", f"[ ! -e {away} ] || {{ mv {away}/* /usr/bin && rmdir {away}; }}"
    )


def deployed(version: str) -> Act:
    """Ask for a deployment, and wait for its end, which is none that one wishes for."""
    return lambda clinic: clinic.run(f"surefoot deploy production {version} >/dev/null 2>&1", check=False)


def as_before(clinic: Clinic) -> None:
    """Have the newest deployment be one that went well."""
    clinic.run("surefoot deploy production 1.0")


def silent(clinic: Clinic) -> None:
    """Wait until the store calls the first runner's agent offline."""
    until(lambda: f"{PRIMARY}" in clinic.run("surefoot agents | grep offline", on=clinic.second, check=False), "silent")


def read_only(wanted: str) -> Act:
    def act(clinic: Clinic) -> None:
        clinic.database.sql(f"ALTER ROLE surefoot SET default_transaction_read_only = {wanted}")
        clinic.database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'surefoot'")

    return act


def access(clinic: Clinic, method: str) -> None:
    text = f"local all all trust\nhost all all samenet {method}\n"
    clinic.lab[DATABASE].write("/var/lib/surefoot-lab-postgres/pg_hba.conf", text)
    clinic.database.sql("SELECT pg_reload_conf()")
    clinic.database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'surefoot'")


def strand(clinic: Clinic) -> None:
    clinic.lab["web-02"].sh("touch /srv/no-way-back")
    clinic.run("surefoot deploy production ill-1 >/dev/null 2>&1", check=False)
    clinic.lab["web-02"].sh("rm /srv/no-way-back")


def unstrand(clinic: Clinic) -> None:
    ask = "surefoot resolve $(surefoot status --output json | grep -o 'production-[0-9]*') --unchecked --reason healed"
    clinic.run(ask, check=False)
    as_before(clinic)


def stick(clinic: Clinic) -> None:
    """Have a step run that says nothing, and wait until it has begun."""
    clinic.run("surefoot deploy production slow-1 --detach")
    ask = "surefoot show $(surefoot status --output json | grep -o 'production-[0-9]*')"
    until(lambda: "warm" in clinic.run(f"{ask} | grep running", check=False), "the step runs")


def end_other(clinic: Clinic) -> None:
    """End the agent that has the first runner's name on the second one, and wait until its name is free."""
    its = f"[s]urefoot agent run {PRIMARY}"
    clinic.second.sh(f"pkill -f '{its}'; while pgrep -f '{its}'; do sleep 0.1; done", check=False)


def second_of_one_name(clinic: Clinic) -> None:
    """Start one that would be refused, and stop it before it can find out."""
    program = f"PYTHONPATH={clinic.source} {sys.executable} -m surefoot agent run {PRIMARY}"
    stop = "until tr '\\0' ' ' </proc/$!/cmdline | grep -q 'agent run'; do :; done; kill -STOP $!"
    clinic.runner.sh(f"cd {FOLDER}; set -a; . {ENVIRONMENT}; env {program} </dev/null >/srv/other.log 2>&1 & {stop}")


# -- the faults ------------------------------------------------------------------------------------------------------

FAULTS: tuple[Fault, ...] = (
    # -- agents and their machines
    Fault(
        "an agent killed", "agent-ended", both(signalled("KILL"), silent), at_work, words=PRIMARY,
    ),
    Fault(
        "both agents stopped", "agent-ended",
        both(agent("stop"), agent("stop", on=SECONDARY)), at_work, words=PRIMARY,
    ),
    Fault("an agent frozen", "agent-frozen", frozen, thawed, words=PRIMARY),
    Fault(
        "a runner without power, seen from the other", "agent-silent",
        both(lambda c: c.runner.power_off(), silent), both(lambda c: c.runner.power_on(), at_work),
        on=SECONDARY, words=PRIMARY, by_hand=lambda c: c.runner.power_on(),
    ),
    Fault(
        "a runner cut off from all, seen from the other", "agent-silent",
        both(lambda c: c.runner.cut(), silent), both(lambda c: c.runner.heal(), at_work),
        on=SECONDARY, words=PRIMARY, by_hand=lambda c: c.runner.heal(),
    ),
    Fault(
        "both agents drained", "agent-draining",
        lambda c: c.run(f"surefoot agent drain {PRIMARY} && surefoot agent drain {SECONDARY}"),
        lambda c: c.run(f"surefoot agent undrain {PRIMARY}; surefoot agent undrain {SECONDARY}"),
    ),
    Fault(
        "two agents with one name, the other on another machine", "agent-duplicate",
        both(
            agent("stop"),
            lambda c: c.run(f"(exec </dev/null >/srv/other.log 2>&1; surefoot agent run {PRIMARY}) &", on=c.second),
            lambda c: until(lambda: PRIMARY in c.run("surefoot agents | grep online", check=False), "it is there"),
            lambda c: c.runner.sh(f"systemctl start {AGENT}", check=False),
            lambda c: until(lambda: not c.runner.active(AGENT), "it is refused"),
        ),
        both(end_other, at_work),
        words=PRIMARY, by_hand=lambda c: (end_other(c), c.runner.systemctl("start", AGENT)),
    ),
    Fault(
        "two agents with one name on one machine, one of them frozen", "agent-duplicate", second_of_one_name,
        at_work, first=False, words=PRIMARY,
    ),
    Fault(
        "the CI runner's own service down", "service-down",
        lambda c: (
            c.runner.unit("actions.runner.shop.runner-01", "[Service]\nExecStart=/bin/sleep infinity\n"),
            c.runner.systemctl("start", "actions.runner.shop.runner-01"),
            c.runner.systemctl("kill", "--signal=KILL", "actions.runner.shop.runner-01"),
            until(lambda: not c.runner.active("actions.runner.shop.runner-01"), "it is dead"),
        ),
        on_host(PRIMARY, "systemctl disable --now actions.runner.shop.runner-01; "
                "rm /etc/systemd/system/actions.runner.shop.runner-01.service; systemctl daemon-reload"),
    ),
    Fault(
        "the runner's disk full", "agent-disk", lambda c: c.runner.disk.fill(), lambda c: c.runner.disk.free(),
        by_hand=lambda c: c.runner.disk.free(),
    ),
    Fault(
        "the runner's clock 10 minutes behind", "clock-skew", nothing,
        prefix=f"env LD_PRELOAD={FAKE} FAKETIME=-10m DONT_FAKE_MONOTONIC=1 ",
        by_hand=nothing,
    ),
    # -- the store
    Fault("the store down", "store", on_host(DATABASE, "systemctl stop lab-postgres"),
          both(on_host(DATABASE, "systemctl start lab-postgres"), at_work),
          by_hand=on_host(DATABASE, "systemctl start lab-postgres")),
    Fault(
        "the store's host without power", "store", lambda c: c.lab[DATABASE].power_off(),
        both(lambda c: c.lab[DATABASE].power_on(), on_host(DATABASE, "systemctl start lab-postgres"), at_work),
        by_hand=both(lambda c: c.lab[DATABASE].power_on(), on_host(DATABASE, "systemctl start lab-postgres")),
    ),
    Fault(
        "the store read-only", "store", read_only("on"), both(read_only("off"), at_work), by_hand=read_only("off"),
    ),
    Fault(
        "the store refuses the password", "store", lambda c: access(c, "scram-sha-256"),
        both(lambda c: access(c, "trust"), at_work), by_hand=lambda c: access(c, "trust"),
    ),
    Fault(
        "the store's name unknown (DNS)", "store",
        edited("/etc/hosts", f"s/{DATABASE}/elsewhere/")[0],
        both(edited("/etc/hosts", "")[1], at_work), by_hand=edited("/etc/hosts", "")[1],
    ),
    # -- the config and secrets
    Fault("a config with a slip of the pen", "config", *edited(f"{FOLDER}/surefoot.yml", "s/retry:/retri:/"),
          by_hand=edited(f"{FOLDER}/surefoot.yml", "")[1]),
    Fault("an inventory without hosts", "inventory", *edited(f"{FOLDER}/production.ini", "/^web-/d"),
          by_hand=edited(f"{FOLDER}/production.ini", "")[1]),
    Fault("a secret not set", "secret-missing", secrets(RELEASE_TOKEN=None), secrets(), words="RELEASE_TOKEN",
          by_hand=secrets()),
    Fault("a token expired", "secret-invalid", secrets(RELEASE_TOKEN=token(-3600)), secrets(),
          words="RELEASE_TOKEN is a token that expired", by_hand=secrets()),
    Fault("a certificate expired", "secret-invalid", secrets(SIGNING_CERTIFICATE=certificate(-3600)), secrets(),
          words="SIGNING_CERTIFICATE is a certificate that expired", by_hand=secrets()),
    # -- hosts
    Fault("a host's sshd down", "host-unreachable", on_host("web-02", "systemctl stop ssh"),
          lambda c: c.lab["web-02"].start_sshd(), words="nothing listens there",
          by_hand=on_host("web-02", "systemctl start ssh")),
    Fault("a host without power", "host-unreachable", lambda c: c.lab["web-02"].power_off(),
          both(lambda c: c.lab["web-02"].power_on(), on_host("web-02", "systemctl start shop")),
          words="does not answer within",
          by_hand=both(lambda c: c.lab["web-02"].power_on(), on_host("web-02", "systemctl start shop"))),
    Fault("a host frozen", "host-unreachable", lambda c: c.lab["web-02"].freeze(), lambda c: c.lab["web-02"].thaw(),
          words="says nothing", by_hand=lambda c: c.lab["web-02"].thaw()),
    Fault("a firewall between runner and host", "host-unreachable",
          lambda c: c.runner.cut(c.lab["web-02"]), lambda c: c.runner.heal(),
          words="does not answer within", by_hand=lambda c: c.runner.heal()),
    Fault("the runner's network down for all hosts", "host-unreachable",
          lambda c: [c.runner.cut(host) for host in c.web], lambda c: c.runner.heal(),
          by_hand=lambda c: c.runner.heal()),
    Fault("a host's name unknown (DNS)", "host-unreachable", edited("/etc/hosts", "s/web-02/elsewhere/")[0],
          edited("/etc/hosts", "")[1], words="can't be resolved", by_hand=edited("/etc/hosts", "")[1]),
    Fault("a wrong SSH key", "host-auth", on_host("web-02", "mv /etc/ssh/lab_authorized /etc/ssh/kept"),
          on_host("web-02", "[ ! -e /etc/ssh/kept ] || mv /etc/ssh/kept /etc/ssh/lab_authorized"),
          by_hand=on_host("web-02", "mv /etc/ssh/kept /etc/ssh/lab_authorized")),
    Fault(
        "a host's key changed", "host-key-changed",
        on_host("web-02", "cp -p /etc/ssh/lab_hostkey /etc/ssh/kept; rm /etc/ssh/lab_hostkey; "
                "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/lab_hostkey; systemctl restart ssh"),
        both(on_host("web-02", "mv /etc/ssh/kept /etc/ssh/lab_hostkey; systemctl restart ssh"),
             know_hosts),
        by_hand=on_host(PRIMARY, "ssh-keygen -R web-02 && ssh-keyscan web-02 >>~/.ssh/known_hosts"),
    ),
    Fault("a host's key not known", "host-key-unknown", on_host(PRIMARY, "sed -i /web-02/d /root/.ssh/known_hosts"),
          know_hosts, by_hand=on_host(PRIMARY, "ssh-keyscan web-02 >>~/.ssh/known_hosts")),
    Fault("sudo refused on a host", "host-sudo", on_host("web-02", "rm /etc/sudoers.d/deploy"),
          lambda c: c.let_sudo(c.lab["web-02"])),
    Fault("no Python on a host", "host-python", *moved("/usr/bin/python3*"), by_hand=moved("/usr/bin/python3*")[1]),
    Fault("no flock on a host", "fence-programs", *moved("/usr/bin/flock"), by_hand=moved("/usr/bin/flock")[1]),
    Fault("a host's disk full", "host-disk", lambda c: c.lab["web-02"].disk.fill(),
          lambda c: c.lab["web-02"].disk.free(), by_hand=lambda c: c.lab["web-02"].disk.free()),
    Fault("a host's clock 10 minutes ahead", "host-clock", clock("LD_PRELOAD=" + FAKE + " FAKETIME=+10m"), clock(""),
          by_hand=clock("")),
    Fault("the fence's folder lost", "fence-lost", on_host("web-02", f"rm -r {FENCE}"), as_before),
    Fault("the fence's folder can't be written", "fence-folder", on_host("web-02", f"chown -R root {FENCE}"),
          on_host("web-02", f"chown -R deploy {FENCE}")),
    Fault("a store restored from a backup: a host holds a greater token", "fence-ahead",
          on_host("web-02", f"echo {9000 * FENCES} >$(ls {FENCE}/shop/production/*/token)"), as_before,
          by_hand=on_host("web-02", f"rm -r {FENCE}/shop/production/*")),
    # -- what checks look at
    Fault("an artifact missing", "artifact-file",
          both(on_host(PRIMARY, "rm /srv/releases/2.0.tar.gz"), deployed("2.0")),
          both(on_host(PRIMARY, "echo 2.0 >/srv/releases/2.0.tar.gz"), as_before), words="2.0.tar.gz is not there",
          by_hand=on_host(PRIMARY, "echo 2.0 >/srv/releases/2.0.tar.gz")),
    Fault("an image never pushed", "artifact-image",
          both(on_host(PRIMARY, "touch /srv/releases/3.0.tar.gz"), deployed("3.0")), as_before, by_hand=as_before),
    Fault("the registry refuses the login", "artifact-image", secrets(REGISTRY_PASSWORD="old"), secrets(),
          by_hand=secrets()),
    Fault("the registry down", "artifact-image", on_host("tools-01", "systemctl stop registry"),
          on_host("tools-01", "systemctl start registry"), by_hand=on_host("tools-01", "systemctl start registry")),
    Fault("Prometheus down", "preflight-prometheus", on_host("tools-01", "systemctl stop prometheus"),
          on_host("tools-01", "systemctl start prometheus"), by_hand=on_host("tools-01", "systemctl start prometheus")),
    Fault("a service down on one host", "health-http", on_host("web-02", "systemctl stop shop"),
          on_host("web-02", "systemctl start shop"), by_hand=on_host("web-02", "systemctl start shop")),
    # -- versions and deployments
    Fault("mixed versions", "versions-mixed", on_host("web-02", "sed -i 's/\"1.0\"/\"0.9\"/' /var/lib/shop.json"),
          as_before),
    Fault("a version that fails its health checks", "deployment-failed",
          deployed("ill-1"), as_before, by_hand=as_before),
    Fault("stranded", "stranded", strand, unstrand),
    Fault("a stuck step", "step-stuck", both(stick, lambda c: time.sleep(50)), lambda c: (c.settle(), as_before(c))),
    Fault("an agent frozen in mid-deployment, and no other there", "agent-frozen",
          both(agent("stop", on=SECONDARY), stick, frozen, lambda c: time.sleep(25)),
          lambda c: (thawed(c), c.settle(), as_before(c)), words=PRIMARY),
)  # fmt: skip
