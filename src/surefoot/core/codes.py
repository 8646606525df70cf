# SPDX-License-Identifier: Apache-2.0
"""What each code means, what usually causes it, and what to do: the one table behind `surefoot explain` and its page.

Guarantees: every code has an entry, in the order of `Code`. The hint that comes with a failure knows the names and
places of that very case; this table knows the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from surefoot.core.errors import Code


@dataclass(frozen=True, slots=True)
class Advice:
    """What there is to know of a code. `mend` is in the order in which it is worth trying."""

    means: str
    causes: tuple[str, ...]
    mend: tuple[str, ...]
    runbook: str = ""  #: a page of docs/runbooks, without its ending


_CHECK = "`surefoot check` names file, line and key of every problem"
_DOCTOR = "`surefoot doctor` names the cause, and the command that mends it"
_LOGS = "`surefoot logs ID` shows what it printed; `surefoot show ID` where it stopped"
_AGAIN = "deploy again: `surefoot deploy ENV VERSION`"
_REACH = "from the agent: `ansible HOST -i INVENTORY -m ping -vvv`"

ADVICE: dict[Code, Advice] = {
    Code.INTERNAL: Advice(
        "The program met something that it did not expect: a defect of its own.",
        ("a defect", "a damaged installation"),
        (
            "run the command again with `-v`, which shows where it happened",
            "report that, with `surefoot doctor --bundle FILE`",
        ),
    ),
    Code.USAGE: Advice(
        "The command was called in a way that it does not know.",
        ("an option or argument is missing, misspelt, or not for this command",),
        ("`surefoot COMMAND --help` shows how, with an example",),
    ),
    Code.OUTPUT: Advice(
        "The result of a command could not be written. What the command was to do was done, or was read.",
        ("stdout is a file on a disk that is full, or a device that fails",),
        ("`df -h` of where it is redirected to", "`surefoot history ENVIRONMENT` has what was accepted"),
    ),
    Code.VERSION_INVALID: Advice(
        "What was given can't be a version: it would be unsafe in paths, commands or tags.",
        ("an empty variable in a CI job", "spaces or control characters in the version"),
        ("use letters, digits, dots, dashes, underscores, as in `1.4.2`",),
    ),
    Code.CONFIG_MISSING: Advice(
        "There is no `surefoot.yml` here or in a folder above.",
        ("the command runs in another folder", "the CI job did not check the repository out"),
        ("name it: `surefoot --config PATH status`", "or write one: `surefoot init`"),
    ),
    Code.CONFIG_SYNTAX: Advice(
        "The config is no YAML that can be read.",
        ("tabs, or indentation that does not fit", "a colon or brace in text without quotes"),
        (_CHECK,),
    ),
    Code.CONFIG_KEY: Advice(
        "The config has a key that is unknown, missing, or not to be had together with another.",
        ("a slip of the pen", "a key of a newer version"),
        (_CHECK + ", and what was probably meant",),
    ),
    Code.CONFIG_VALUE: Advice(
        "A value in the config is not one that its key can take.",
        ("a wrong type or unit", "a name that is not defined elsewhere in the file"),
        (_CHECK + ", and what is allowed",),
    ),
    Code.CONFIG_VARIABLE: Advice(
        "The config speaks of an environment variable that is not set.",
        ("the variable is set for another user or job", "a secret of the CI that this job may not see"),
        ("set it where the command runs, or give it a default in the config",),
    ),
    Code.CONFIG_FILE: Advice(
        "A file that the config names is not there, not readable, or outside the project.",
        ("it was moved or not checked in", "its permissions"),
        (_CHECK,),
    ),
    Code.CONFIG_TIMING: Advice(
        "Times in the config contradict each other.",
        ("an interval that is longer than the time it has to fit in",),
        (_CHECK, "the defaults suit most"),
    ),
    Code.BUNDLE: Advice(
        "The files that a deployment runs from can't be packed, kept or unpacked.",
        (
            "a file that can't be read",
            "more or larger files than fit",
            "a git that does not answer",
            "the store lost it",
        ),
        ("the hint names the file; leave large ones out with `.gitignore`", _AGAIN),
    ),
    Code.ENVIRONMENT_UNKNOWN: Advice(
        "Neither the config nor the journal knows an environment of that name.",
        ("a slip of the pen", "another config or another store than you think"),
        ("`surefoot status` lists all",),
    ),
    Code.DEPLOYMENT_UNKNOWN: Advice(
        "The store has no deployment of that id.",
        ("a slip of the pen; ids look like `production-12`", "another store than you think"),
        ("`surefoot history ENV` lists them",),
    ),
    Code.AGENT_UNKNOWN: Advice(
        "No agent of that name is in the config, or has ever reported.",
        ("a slip of the pen", "the config on this machine is older than the one that names it"),
        ("`surefoot agents` lists all", "from any machine: `surefoot agent run NAME --role emergency`"),
        "both-runners-offline",
    ),
    Code.AGENT_DUPLICATE: Advice(
        "Another live process runs an agent of that name; two of one name would pass for one.",
        ("a service and a person have both started it", "two machines were set up from one image"),
        (
            "find it: `surefoot agents`, then on that machine `pgrep -af 'surefoot.* agent run'`",
            "give each its own name",
        ),
        "runner-offline",
    ),
    Code.AGENT_FOLDER: Advice(
        "The agent can't use its own folder, so it can't unpack or run anything.",
        ("the agent's disk is full", "the folder belongs to another user", "a file system that turned read-only"),
        ("on the agent: `df -h`; `ls -ld .surefoot`", _DOCTOR),
        "runner-degraded",
    ),
    Code.NOT_ALLOWED: Advice(
        "The thing exists, but its present state does not allow what was asked.",
        ("it has ended already", "somebody was faster"),
        ("`surefoot show ID` says where it is",),
    ),
    Code.LOCKED: Advice(
        "The environment is locked: an earlier deployment is stranded, and nobody has declared it repaired.",
        ("a rollback failed", "hosts run mixed versions"),
        ("`surefoot doctor ID` says which host runs what", "when it is repaired: `surefoot resolve ID --reason TEXT`"),
        "stranded",
    ),
    Code.FROZEN: Advice(
        "Somebody has frozen the environment: nothing may start.",
        ("a freeze that is meant", "one that was forgotten"),
        (
            "`surefoot status ENV` says who and why",
            "wait for its end with `--when-open`",
            "or lift it: `surefoot unfreeze ENV`",
        ),
        "queue-growing",
    ),
    Code.WINDOW_CLOSED: Advice(
        "Deployments may only start in certain hours, and it is none of them.",
        ("the windows in the config", "a time zone"),
        ("wait for it with `--when-open`",),
    ),
    Code.NOT_PROMOTED: Advice(
        "The version has not succeeded in the environment that it must come from, or too long or too short ago.",
        ("it was never deployed there", "its deployment there failed"),
        ("deploy it there first: `surefoot history ENV`",),
    ),
    Code.APPROVAL_NOT_ALLOWED: Advice(
        "This person may not approve this deployment.",
        ("one may not approve what one has asked for", "not in the group that the config names"),
        ("ask somebody of the groups that `surefoot show ID` names",),
    ),
    Code.APPROVAL_EXPIRED: Advice(
        "Nobody approved the deployment in time; it ended before anything was touched.",
        ("nobody knew", "those who may approve were away"),
        (_AGAIN + ", and tell them",),
    ),
    Code.REJECTED: Advice(
        "A person rejected the deployment before it began; nothing was touched.",
        ("`surefoot show ID` says who and why",),
        ("talk to them, then deploy what they agree to",),
    ),
    Code.SUPERSEDED: Advice(
        "A newer deployment took this one's place in the queue before it began (`queue: latest`).",
        ("as the config wants it",),
        ("nothing: the newer one has it all",),
    ),
    Code.NO_EARLIER_VERSION: Advice(
        "There is no earlier version to go back to.",
        ("the environment has had one version only", "the named one never succeeded there"),
        ("`surefoot history ENV` shows what there was", "deploy a version that works"),
        "rollback-failed",
    ),
    Code.TIMED_OUT: Advice(
        "The command stopped waiting; the deployment itself goes on.",
        ("`--timeout` is shorter than queue and steps take",),
        ("`surefoot doctor ID` says what it waits for", "follow it again: `surefoot events ID --follow`"),
        "queue-growing",
    ),
    Code.STORE_UNREACHABLE: Advice(
        "The store can't be reached or opened. Steps that run are ended, and go on once it is back.",
        ("the database is down or fails over", "network, DNS or firewall", "a wrong URL or path"),
        (_DOCTOR, "check that the database answers: `pg_isready -h HOST`"),
        "store-down",
    ),
    Code.STORE_AUTH: Advice(
        "The store refuses the user or the password.",
        ("the password was rotated and not told to this agent", "`pg_hba.conf`"),
        ("correct the URL in `SUREFOOT_STORE`, and start the agent again",),
        "store-down",
    ),
    Code.STORE_UNFIT: Advice(
        "The database can be reached, but can't serve as a store the way it is set up.",
        (
            "a PgBouncer between that pools transactions",
            "an encoding that can't hold all text",
            "its schema `surefoot` is another program's",
        ),
        ("the hint names what to change", "name another database, or the server itself, in the store's URL"),
        "store-down",
    ),
    Code.STORE_READ_ONLY: Advice(
        "The store takes no changes.",
        ("the URL names a standby", "the database has turned read-only", "file permissions of an SQLite store"),
        ("name the primary, or several hosts, in the store's URL", "SQLite: `ls -ld` the file and its folder"),
        "store-down",
    ),
    Code.STORE_FULL: Advice(
        "The store's disk is full.",
        ("logs, backups or other tenants of that disk",),
        ("free some space on the database server; agents go on by themselves then",),
        "store-down",
    ),
    Code.STORE_BUSY: Advice(
        "The store could not be locked in time.",
        ("a frozen process or a long transaction keeps the lock", "SQLite on a network file system"),
        ("SQLite: `fuser FILE` names who has it open", "PostgreSQL: look into `pg_stat_activity`"),
        "store-down",
    ),
    Code.STORE_NEWER: Advice(
        "A newer version of the program has upgraded the store, or written what this one does not know.",
        ("one agent or workstation was not upgraded",),
        ("upgrade this one: `pip install --upgrade surefoot` (an agent: stop it first)",),
        "store-down",
    ),
    Code.STORE_CORRUPT: Advice(
        "The store's data is damaged.",
        ("a failing disk", "a copy that was made while it was written"),
        ("restore it from a backup", "SQLite: `sqlite3 FILE '.recover'`"),
        "store-down",
    ),
    Code.LEASE_LOST: Advice(
        "The store no longer grants this agent the lease: another has taken over. It stopped touching anything.",
        ("the agent was frozen, overloaded or cut off for longer than the lease's ttl",),
        ("nothing for the deployment: the other agent has it", "if it happens often: `surefoot doctor`"),
        "network-partition",
    ),
    Code.PREFLIGHT_FAILED: Advice(
        "A preflight check did not pass; nothing was touched.",
        ("an image or file that was never published", "a runner or host that is not well", "a secret that expired"),
        ("`surefoot preflight ENV VERSION` runs the checks alone, with a fix for each that fails", _DOCTOR),
        "artifact-missing",
    ),
    Code.STEP_FAILED: Advice(
        "A step's command or playbook ended with an error, as often as it may be tried.",
        ("what the step's own output says",),
        (_LOGS,),
        "health-checks-failing",
    ),
    Code.STEP_TIMED_OUT: Advice(
        "A step was still running after its timeout, and was ended with all its processes.",
        ("it waits for something that does not come", "a host that takes a connection and never answers"),
        (_LOGS, "if it only needs longer: a larger `retry: {timeout: …}` for the step"),
        "health-checks-failing",
    ),
    Code.STEP_KILLED: Advice(
        "A step's process was killed by a signal.",
        ("the machine ran out of memory", "a person or a service manager killed it"),
        ("on the agent: `dmesg -T | grep -i 'out of memory'`", _LOGS),
        "runner-degraded",
    ),
    Code.STEP_NOT_STARTED: Advice(
        "A step's command could not be started.",
        ("a program is not installed on that agent", "no memory or process numbers are left"),
        ("install it on every agent: they must be alike",),
        "runner-degraded",
    ),
    Code.SECRET_MISSING: Advice(
        "A secret that steps or checks need is not set in the agent's environment.",
        ("the agent was started without its environment file", "a rotation that left it out"),
        ("set it where the agent is started, and start it again", _DOCTOR),
        "secrets-expired",
    ),
    Code.SECRET_UNREADABLE: Advice(
        "The file that holds a secret is not there, or can't be read by the agent.",
        ("it is on another machine only", "the agent runs as another user", "a mount that is missing"),
        ("on the agent's machine, as the agent's user: `ls -lL FILE`", _AGAIN),
        "secrets-expired",
    ),
    Code.SECRET_EXPOSED: Advice(
        "The file that holds a secret can be read or written by others, or belongs to somebody else.",
        ("it was written with the usual mode", "it was copied by another user"),
        ("on the agent's machine: `chmod 600 FILE`, `chown USER FILE`", "renew the secret if others may have read it"),
        "secrets-expired",
    ),
    Code.SECRET_COMMAND: Advice(
        "The command that prints a secret failed, took too long, or printed nothing.",
        ("a login at the vault that has expired", "the vault is down", "its program is not installed on that agent"),
        ("run it where the agent runs, as the agent's user", "log in to the vault anew", _AGAIN),
        "secrets-expired",
    ),
    Code.SECRET_VAULT: Advice(
        "A file of ansible-vault's could not be opened, or does not hold the secret.",
        ("another password than it was encrypted with", "another key in the file", "a file that is not encrypted"),
        ("see what it holds: `ansible-vault view FILE`", "give the agent the right password"),
        "secrets-expired",
    ),
    Code.SECRET_INVALID: Advice(
        "A secret is there, but is not what it must be: no private key that can be read, too long, with a zero byte.",
        ("it was stored without its line breaks", "it is cut off", "a key that needs a passphrase"),
        ("store it anew, whole", "take the passphrase off a copy: `ssh-keygen -p -N '' -f FILE`"),
        "secrets-expired",
    ),
    Code.SECRET_EXPIRED: Advice(
        "A token or certificate was good when the deployment began, and no longer is.",
        ("a short-lived one and a long deployment", "a rotation that did not reach the agent"),
        ("renew it where agents read it: the next attempt reads it anew", _AGAIN),
        "secrets-expired",
    ),
    Code.SSH_AGENT: Advice(
        "The agent's machine has no `ssh-agent`, which is to hold the private key.",
        ("OpenSSH's client is not installed",),
        ("where the agent runs: `apt-get install openssh-client`",),
        "network-unreachable",
    ),
    Code.HOST_UNREACHABLE: Advice(
        "A host can't be reached by SSH from the agent.",
        ("it is down or being rebooted", "network, firewall or DNS", "sshd does not run, or on another port"),
        (_DOCTOR, _REACH),
        "network-unreachable",
    ),
    Code.HOST_KEY_CHANGED: Advice(
        "A host shows another key than it used to.",
        ("it was set up anew", "another machine has its address", "somebody is in between"),
        ("find out which; if it was set up anew: `ssh-keygen -R ADDRESS`, then connect once by hand",),
        "network-unreachable",
    ),
    Code.HOST_KEY_UNKNOWN: Advice(
        "The agent has never seen the host's key, so it can't tell who answers.",
        ("a new host, or a new agent", "another user than the one who knows it"),
        ("`ssh-keyscan ADDRESS >> ~/.ssh/known_hosts`, and compare with the host's own key",),
        "network-unreachable",
    ),
    Code.HOST_AUTH: Advice(
        "The host does not let the agent in.",
        ("a key that was rotated on one side only", "another user than the inventory should name"),
        ("on the host: is the public key in `~/.ssh/authorized_keys`?", _REACH),
        "secret-rotation",
    ),
    Code.HOST_SUDO: Advice(
        "The user can't become root on a host without a password.",
        ("a sudoers file that was changed",),
        ("on the host: `sudo visudo -f /etc/sudoers.d/USER`, and write `USER ALL=(ALL) NOPASSWD: ALL`",),
        "network-unreachable",
    ),
    Code.HOST_PYTHON: Advice(
        "The host has no Python where Ansible looks for it.",
        ("a fresh host", "an upgrade of its system"),
        ("on the host: `apt-get install python3`", "or set `ansible_python_interpreter` in the inventory"),
        "network-unreachable",
    ),
    Code.HOST_DISK_FULL: Advice(
        "A host's disk is full.",
        ("logs", "old releases that nobody removes"),
        ("on the host: `df -h`, then `du -xh / | sort -h | tail`",),
        "health-checks-failing",
    ),
    Code.NO_HOSTS: Advice(
        "The inventory holds no hosts.",
        ("a wrong file", "a dynamic inventory that found nothing"),
        ("`ansible-inventory -i INVENTORY --list`",),
        "network-unreachable",
    ),
    Code.HOSTS_CHANGED: Advice(
        "The inventory names other hosts than when the deployment began: some may have been changed and can't be found "
        "any more, or others would get half of it.",
        (
            "a dynamic inventory whose source answered in part, or that an agent has no credentials for",
            "a host that was added or removed while the deployment ran",
        ),
        (
            "on each agent: `ansible-inventory -i INVENTORY --list`; see that hosts are not added or removed meanwhile",
            "if it is stranded: see to the hosts that are named, then `surefoot resolve`",
        ),
        "rollback-failed",
    ),
    Code.FENCE_FAILED: Advice(
        "The fence could not be raised on a host, so nothing was changed there.",
        (
            "a process of an older agent that can't be ended (it waits for a disk)",
            "settings of Ansible's keep our callback or our play from hosts",
        ),
        ("on the host: the hint names the processes; end them, then deploy again",),
        "network-partition",
    ),
    Code.FENCE_STALE: Advice(
        "A host refused an agent, since a newer one was let in: it did what it is for.",
        ("another agent has taken over", "the store was restored from a backup, and its tokens are behind the hosts'"),
        ("after a takeover: nothing", "`surefoot doctor` tells if the store is behind a host"),
        "network-partition",
    ),
    Code.FENCE_FOLDER: Advice(
        "A host can't keep its fence: the folder can't be made, written or locked.",
        ("the user may not write it", "a read-only or full disk", "a file system without locks"),
        ("on the host: `ls -ld /var/lib/surefoot/fence`", "or another folder: `fence: {path: …}` in the config"),
        "network-unreachable",
    ),
    Code.HEALTH_FAILED: Advice(
        "The health checks did not pass in time; the version before is put back.",
        ("the new version is broken", "something that it needs is down", "a check that looks at the wrong place"),
        ("`surefoot doctor ID` runs the checks again and says which fails now", _LOGS),
        "health-checks-failing",
    ),
    Code.STATE_FILE: Advice(
        "The file that says which version a host runs can't be written or read there.",
        ("its folder is not there or not writable", "a full disk"),
        ("on the host: `ls -ld` its folder; it must be writable, or sudo free of passwords",),
        "stranded",
    ),
    Code.VERSIONS_MIXED: Advice(
        "Hosts run different versions, and it was not possible to bring them to one.",
        ("a step that skips hosts", "somebody changed a host by hand"),
        ("`surefoot doctor ID` lists what each host runs, and what to run",),
        "stranded",
    ),
    Code.LOOK_AGAIN: Advice(
        "What a person said of hosts may be true no more: the fence rose only after that, and nobody else can look.",
        ("a deployment was stranded while the fence could not be raised on a host",),
        (
            "look at each host once more; nothing of the deployment can change one any more",
            "then again: `surefoot resolve ID --reason TEXT`",
            "a `version_probe` in the config lets Surefoot look by itself",
        ),
        "stranded",
    ),
    Code.CANCELLED: Advice(
        "Somebody asked for a cancel, and what was begun was put back.",
        ("a person, or a CI job that was ended",),
        ("nothing; `surefoot show ID` says who", _AGAIN),
    ),
    Code.TAKEN_OVER_TOO_OFTEN: Advice(
        "The deployment was taken over so often that it may be what kills agents; so it was put back.",
        ("a step that takes all memory", "agents that are stopped again and again", "a flapping network"),
        (
            "`surefoot events ID` shows each takeover with its reason",
            "on the agents: `dmesg -T | grep -i 'out of memory'`",
        ),
        "runner-degraded",
    ),
    Code.UNDO_FAILED: Advice(
        "Putting the version before back has failed: the deployment is stranded.",
        ("an undo step that fails", "a host that went away meanwhile"),
        ("`surefoot doctor ID` lists what each host runs, and what to run",),
        "rollback-failed",
    ),
    Code.DELIVERY_FAILED: Advice(
        "Somebody who is to be told could not be reached; it is tried again.",
        ("the service is down", "the agents may not reach it"),
        ("nothing, if it is back soon; `surefoot show ID` says who was told",),
    ),
    Code.DELIVERY_REFUSED: Advice(
        "A service refused what it was told.",
        ("a token that expired or may not do that", "a project or repository of another name"),
        ("renew the token, and start the agents again with it",),
        "secret-rotation",
    ),
    Code.EXTRA_MISSING: Advice(
        "What was asked for needs a package that is not installed.",
        ("the extra was left out at the installation",),
        ("`pip install 'surefoot[notify]'`, or the extra that the hint names",),
    ),
    Code.LAB: Advice(
        "The lab's hosts can't be set up on this machine.",
        ("not root", "a kernel or container without namespaces"),
        ("run it as root on a machine or virtual machine of its own",),
    ),
    Code.DRILL: Advice(
        "A drill can't be played now, or could not be played to its end.",
        (
            "the environment that it is to be played against is not idle, or its deployments wait for somebody",
            "a fault's own command failed",
            "what the drill waited for did not come",
        ),
        (
            "the message names what is in the way, and the commands by which what was left is put right",
            "the environment's state: `surefoot status ENV`; what was said is kept in the folder that is named last",
        ),
    ),
    Code.LISTEN: Advice(
        "The program can't listen where it was asked to.",
        ("another program has the port (node_exporter has 9100, too)", "a port below 1024 without the right to"),
        ("`ss -ltnp` names who has it", "choose another with `--listen`"),
    ),
    Code.WEB_CONFIG: Advice(
        "The file with TLS and passwords for a server can't be used.",
        ("a file that is not there", "a hash that is no bcrypt"),
        ("the message names the key",),
    ),
    Code.PUSH_FAILED: Advice(
        "Metrics or a trace could not be pushed; the deployment's outcome does not depend on it.",
        ("the Pushgateway, or the receiver of traces, is down or elsewhere",),
        ("check its address and that it answers",),
    ),
    Code.CODE_UNKNOWN: Advice(
        "There is no code of that name.",
        ("a slip of the pen", "a code of a newer version"),
        ("`surefoot explain --list`",),
    ),
}


def page() -> str:
    """Return the page of all codes."""
    return "\n".join([_HEAD, *(line for code in Code for line in _section(code))])


def document(code: Code) -> dict[str, Any]:
    """Return what there is to know of a code, for programs."""
    advice = ADVICE[code]
    return {
        "code": str(code),
        "means": advice.means,
        "causes": list(advice.causes),
        "mend": list(advice.mend),
        "runbook": f"docs/runbooks/{advice.runbook}.md" if advice.runbook else None,
    }


_HEAD = """\
# Codes of failures

Made from the program by `python -m surefoot.core.codes`; a test holds the two equal.

Every error and every failure in a journal carries one of these codes. A code is never renamed and never used for
anything else. `surefoot explain CODE` prints its entry in a terminal, `surefoot explain --list` all of them.
"""


def _section(code: Code) -> list[str]:
    advice = ADVICE[code]
    lines = [f"## {code}", "", advice.means, "", "Usual causes:", ""]
    lines += [*(f"- {cause}" for cause in advice.causes), "", "What to do:", ""]
    lines += [f"{number}. {mend}" for number, mend in enumerate(advice.mend, start=1)]
    if advice.runbook:
        lines += ["", f"Runbook: [{advice.runbook}](runbooks/{advice.runbook}.md)"]
    return [*lines, ""]


if __name__ == "__main__":
    print(page(), end="")
