# SPDX-License-Identifier: Apache-2.0
"""Where an agent writes on its machine: a folder of its own, and the registry of running attempts.

Guarantees: what is returned is there and can be written to; RefusedError (SF-AGENT-FOLDER) where that can't be.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from surefoot.core.errors import Code, RefusedError


def own_folder(state: Path, name: str) -> Path:
    """Return the folder of the agent of that name, emptied of what the last one left."""
    folder = state / "agents" / name
    shutil.rmtree(folder, ignore_errors=True)
    return _made(folder)


def attempts_folder() -> Path:
    """Return this machine's registry of running attempts: one for all agents of a user, gone with a reboot."""
    user = os.geteuid()
    run = Path("/run" if user == 0 else os.environ.get("XDG_RUNTIME_DIR", ""))
    # `su` leaves us that of another user, a session that ends takes its own away, and containers may be read-only.
    usable = run.is_absolute() and os.access(run, os.W_OK | os.X_OK)
    place = run if usable else Path(tempfile.gettempdir())
    return _made(place / f"surefoot-{user}" / "attempts")


def see_that_one_can_work(state: Path) -> None:
    """Refuse to go on where no agent could work here, be it only that the disk is read-only."""
    attempts_folder()
    _made(state / "agents")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        why = "it can't be written to"
    except OSError as error:
        why = error.strerror or str(error)
    raise RefusedError(
        f"no agent can work here, for want of its folder {folder}: {why}",
        code=Code.AGENT_FOLDER,
        hint=f"see that this user may write to {folder}",
    )
