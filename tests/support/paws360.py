# SPDX-License-Identifier: Apache-2.0
"""The PAWS360 example on hosts of a lab: where it is, and what makes a copy of it find them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from surefoot.drills.lab import Host, Lab

EXAMPLE = Path(__file__).parents[2] / "examples" / "paws360"
ANSIBLE = Path("infrastructure/ansible")
BIN = Path(sys.executable).parent
#: What another machine's settings would change.
HIDDEN = ("SUREFOOT_", "ANSIBLE_", "GITHUB_", "PRODUCTION_", "CI_", "SSH_")
ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith(HIDDEN)} | {"NO_PROXY": "*"}

POSTGRES = """[Service]
User=postgres
RuntimeDirectory=app-db
ExecStart={programs}/postgres -D /var/lib/app-db -h 0.0.0.0 -k /run/app-db
"""
SET_UP = """set -eu; cd /var/lib
install -d -o postgres app-db
setpriv --reuid=postgres --regid=postgres --clear-groups "$1/initdb" -D app-db -U paws360 -A trust --no-sync
echo host all all 0.0.0.0/0 trust >>app-db/pg_hba.conf
systemctl start app-db app-redis
"""
REDIS = '[Service]\nExecStart=/usr/bin/redis-server --bind 0.0.0.0 --protected-mode no --save ""\n'


def programs() -> Path | None:
    """Return the folder of PostgreSQL's own programs, of the newest one that is installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def let_in(lab: Lab, folder: Path) -> None:
    """Lay the hosts' key, and the file by which they are known, into a folder."""
    (folder / "key").write_text(lab.private_key)
    (folder / "key").chmod(0o600)
    (folder / "known_hosts").write_text(lab.known_hosts())


def aim(copy: Path, environment: str, web: Sequence[Host], database: Host, folder: Path) -> Path:
    """Set up the database's host, and have the environment's inventory in a copy name these hosts, with the key in
    `folder`; return the inventory.
    """
    there = str(programs())
    database.unit("app-db", POSTGRES.format(programs=there))
    database.unit("app-redis", REDIS)
    database.sh(SET_UP, there)
    inventory = copy / ANSIBLE / "inventories" / f"{environment}.ini"
    text = inventory.read_text()
    for host in (*web, database):
        text = text.replace(f"{host.name}.paws360.example", host.address)
    options = f"-F /dev/null -o UserKnownHostsFile={folder / 'known_hosts'} -o GlobalKnownHostsFile=/dev/null"
    text = text.replace("paws360_database_name=paws360", "paws360_database_name=postgres")
    text += f"ansible_ssh_private_key_file={folder / 'key'}\nansible_ssh_common_args='{options}'\n"
    inventory.write_text(text)
    return inventory
