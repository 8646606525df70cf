#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""PAWS360 on this host: what runs, and whom its nginx sends requests to.

  paws360ctl runs             say which version runs here, if all of it runs one
  paws360ctl expect VERSION   wait until that version runs and is well
  paws360ctl migrate VERSION  bring the database to that release's schema, a step at a time
  paws360ctl idle             wait until the services here have answered all that any nginx has sent them
  paws360ctl drain HOST       have the nginx here send a host no more requests
  paws360ctl restore HOST     have it send that host requests again
  paws360ctl reload           have it read its configuration anew, leaving out the hosts that are
  paws360ctl show             say which hosts it leaves out

What counts is what runs, not what files say: the services and nginx themselves are asked. So whatever was cut off half
way is made good by the next call. It says `changed` if it had to change anything, and ends well only when it holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ETC = Path("/etc/paws360")
UPSTREAMS = ETC / "upstreams.conf"
#: Seconds for nginx to run with what it was told, and for services to be well after their start.
PATIENCE = 60
#: Seconds for requests to be answered; what takes longer hangs, and is not worth waiting for.
LAST_REQUEST = 20
#: Seconds without a request after which none is on its way any more.
QUIET = 0.3
PAUSE = 0.05
Here = dict[str, Any]


def ask(port: int, path: str) -> tuple[int, str, str]:
    """Return how this host answers: status, body, version; a status of 0 if it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3) as response:
            return response.status, response.read().decode("utf-8", "replace"), response.headers["X-Paws360-Version"]
    except urllib.error.HTTPError as error:
        return error.code, "", error.headers["X-Paws360-Version"]
    except OSError as error:
        return 0, str(error), ""


# -- what runs -----------------------------------------------------------------------------------------


def answers(here: Here) -> dict[str, tuple[int, str, str]]:
    """Return how each service answers."""
    return {name: ask(service["port"], service["health"]) for name, service in here["services"].items()}


def runs(here: Here) -> None:
    """Print the version that runs, if the link and all services agree on it."""
    link = Path(here["root"]) / "current"
    target = str(link.readlink()).partition("releases/")[2] if link.is_symlink() else ""
    versions = {target, *(version for _, _, version in answers(here).values())}
    print(target if versions == {target} else "")


def expect(here: Here, wanted: str) -> None:
    """Wait until all services run a version and are well."""
    end = time.monotonic() + PATIENCE
    while True:
        found = answers(here)
        if all((status, version) == (200, wanted) for status, _, version in found.values()):
            return
        if time.monotonic() > end:
            said = (f"{name}: {status or text}, version {version}" for name, (status, text, version) in found.items())
            sys.exit(f"{wanted} is not well after {PATIENCE} s: {'; '.join(said)}")
        time.sleep(PAUSE)


def idle(here: Here) -> None:
    """Wait until nothing that nginx has sent is being answered; a service that does not answer has nothing."""
    waiting = list(here["services"].values())
    end = time.monotonic() + LAST_REQUEST
    while waiting and time.monotonic() < end:
        status, body, _ = ask(waiting[0]["port"], waiting[0]["requests"])
        if status == 200 and not ((found := json.loads(body))["active"] == 0 and found["idle_seconds"] >= QUIET):
            time.sleep(PAUSE)
        else:
            waiting.pop(0)
    print("requests hang, and are not waited for any longer" if waiting else "idle")


# -- the database --------------------------------------------------------------------------------------


#: Two at once wait for each other here; the second finds the name taken, and leaves no trace.
RECORD = "INSERT INTO schema_migrations (name) VALUES (:'name')"


def migrate(here: Here, version: str) -> None:
    """Apply what a release has and the database has not, in order, each whole or not at all."""
    release = Path(here["root"]) / "releases" / version
    database = json.loads((release / "release.json").read_text())["database"]
    if not database:
        print("no database is configured")
        return
    psql(database, "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, at timestamptz DEFAULT now())")
    applied = psql(database, "SELECT name FROM schema_migrations").split()
    for file in sorted((release / "migrations").glob("*.sql")):
        if file.name not in applied:
            psql(database, RECORD, file.read_text(), name=file.name)
            print(f"changed: {file.name}")


def psql(database: Here, *statements: str, **variables: str) -> str:
    """Run statements in one transaction; return what they print."""
    names = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "name", "PGUSER": "user", "PGPASSFILE": "passfile"}
    env = {**os.environ, **{name: str(database[key]) for name, key in names.items()}, "PGCONNECT_TIMEOUT": "10"}
    call = ["psql", "-XqAtw", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    call += [f"--set={name}={value}" for name, value in variables.items()]
    done = subprocess.run(
        [*call, "--file=-"], input=";\n".join(statements), env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the database refuses: {done.stderr.strip()}")
    return done.stdout


# -- nginx ---------------------------------------------------------------------------------------------


def configured(here: Here, drained: list[str]) -> str:
    """Return nginx's part that says who gets requests."""
    lines = ["# Written by paws360ctl; a host that gets no requests is `down`."]
    lines += [f'map "" $paws360_drained {{ default "{" ".join(drained)}"; }}']
    for service in here["services"]:
        lines += [f"upstream {service} {{"]
        for name, host in here["hosts"].items():
            how = "down" if name in drained else "max_fails=1 fail_timeout=2s"
            lines += [f"    server {host['address']}:{host[service]} {how};  # {name}"]
        lines += ["}"]
    return "\n".join(lines) + "\n"


def loaded(here: Here) -> list[str] | None:
    """Return who is left out by the nginx that runs; None if none does."""
    status, body, _ = ask(here["port"], "/-/drained")
    return body.split() if status == 200 else None


def leave_out(here: Here, *, more: str = "", less: str = "", reload: bool = False) -> None:
    """Have nginx run with one host more left out, or one less. The others stay as they are: each comes back when it is
    well, and not before.
    """
    if unknown := {more, less} - {"", *here["hosts"]}:
        sys.exit(f"there is no host {', '.join(unknown)}; there are: {', '.join(here['hosts'])}")
    written = UPSTREAMS.read_text() if UPSTREAMS.exists() else ""
    out = {more, *written.partition('default "')[2].partition('"')[0].split()} - {less}
    drained = [name for name in here["hosts"] if name in out]
    text = configured(here, drained)
    if written == text and not reload and loaded(here) == drained:
        return
    if written != text:
        new = UPSTREAMS.with_suffix(".new")
        with new.open("w") as file:
            file.write(text)
            os.fsync(file.fileno())
        new.rename(UPSTREAMS)
    subprocess.run(["systemctl", "reload-or-restart", "paws360-nginx"], check=True)
    end = time.monotonic() + PATIENCE
    while loaded(here) != drained:
        if time.monotonic() > end:
            sys.exit(f"nginx does not run with {UPSTREAMS}: journalctl -u paws360-nginx")
        time.sleep(PAUSE)
    print("changed")


def main(command: str = "", *names: str) -> None:
    """Do what the command line says."""
    here = json.loads((ETC / "host.json").read_text())
    with (ETC / "lock").open("w") as lock:
        if command in ("drain", "restore", "reload"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        match command, names:
            case "runs", ():
                runs(here)
            case "expect", (version,):
                expect(here, version)
            case "migrate", (version,):
                migrate(here, version)
            case "idle", ():
                idle(here)
            case "drain", (host,):
                leave_out(here, more=host)
            case "restore", (host,):
                leave_out(here, less=host)
            case "reload", ():
                leave_out(here, reload=True)
            case "show", ():
                print(*(loaded(here) or []))
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
