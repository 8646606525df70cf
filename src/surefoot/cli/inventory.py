# SPDX-License-Identifier: Apache-2.0
"""The hosts of an inventory, as Ansible itself reads it. Contacts none of them; a dynamic inventory may ask its
source.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from surefoot.core.errors import Code, ConfigError
from surefoot.steps.ansible import executable, hosts_in

#: Seconds for Ansible to read an inventory.
TIMEOUT = 60.0


def hosts_of(folder: Path, inventory: str) -> tuple[str, ...]:
    """Return the hosts' names in the inventory's order; ConfigError if there are none."""
    try:
        done = subprocess.run(
            [executable("ansible-inventory"), "-i", inventory, "--list"],
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            text=True,
            errors="replace",
            check=False,
        )
        known = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise _unreadable(inventory, str(error)) from error
    if known is None:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise _unreadable(inventory, last.strip())
    found = hosts_in(known)
    if not found:
        raise ConfigError(
            f"the inventory {inventory} has no hosts",
            code=Code.NO_HOSTS,
            hint=f"ansible-inventory -i {inventory} --list shows what Ansible reads from it",
        )
    return found


def _unreadable(inventory: str, why: str) -> ConfigError:
    return ConfigError(
        f"Ansible can't read the inventory {inventory}: {why}",
        code=Code.CONFIG_FILE,
        hint=f"ansible-inventory -i {inventory} --list",
    )
