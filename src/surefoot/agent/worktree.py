# SPDX-License-Identifier: Apache-2.0
"""What git says of a folder: which of its files are tracked, and the commit it is at.

Guarantees: only the folder counts, not `GIT_DIR` and the like (a hook sets them); nothing is written, no lock is
taken, nothing is left running; whose the folder is does not matter, because whoever deploys from it runs what it holds
anyway. A folder that git can't read is an error, never silently a folder without git: its untracked files may be what
must not leave the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from surefoot.core.errors import Code, UsageError

#: Seconds for one question: a large work tree on a slow disk takes a few.
ANSWER_WITHIN = 60.0
#: `ls-files` names nothing outside of the folder that it is asked in.
_LIST = ("ls-files", "-z", "--cached", "--recurse-submodules", "--", ".")
_CHANGED = ("status", "--porcelain", "--untracked-files=no", "--", ".")
_NO_WORK_TREE = (b"not a git repository (or any", b"must be run in a work tree")
#: What points git at another repository than the folder's own.
_ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_LITERAL_PATHSPECS",
)


def tracked(folder: Path) -> set[bytes] | None:
    """Return the names of the tracked files below the folder, those of submodules too; None outside of a work tree.

    A folder of which the work tree around it tracks nothing does not belong to it: None too.
    """
    if shutil.which("git") is None:
        if (place := _marked(folder)) is None:
            return None
        raise UsageError(
            f"{place} is a git work tree, and there is no git to ask which of its files are tracked",
            code=Code.BUNDLE,
            hint="install git (Debian: apt-get install git)",
        )
    listed = _git(folder, *_LIST)
    if listed.returncode != 0:
        if any(words in listed.stderr for words in _NO_WORK_TREE):
            return None
        raise UsageError(
            f"git can't tell which files of {folder} are tracked: {_last_line(listed.stderr)}",
            code=Code.BUNDLE,
            hint=f"make `git -C {folder} status` work, or take .git away: then all files are deployed",
        )
    names = {name for name in listed.stdout.split(b"\0") if name}
    return names if names or _git(folder, "rev-parse", "--show-prefix").stdout == b"\n" else None


def commit_of(folder: Path) -> str | None:
    """Return the commit that the folder is at, `-dirty` behind it if tracked files differ; None if git knows none."""
    try:
        if not tracked(folder):
            return None
        head = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
        if head.returncode != 0:
            return None
        changed = _git(folder, *_CHANGED).stdout
    except (UsageError, OSError):
        return None
    return head.stdout.decode().strip() + ("-dirty" if changed else "")


def git_log(folder: Path, since: str, limit: int) -> list[str]:
    """Return the commits that touch the folder since another one, newest first; none where git can't tell.

    Each is a hash, an author, a time (since 1970) and a subject, with the unit separator (0x1f) between them.
    """
    form = "--format=%H%x1f%an%x1f%ct%x1f%s"
    try:
        found = _git(folder, "log", form, f"--max-count={limit}", "--end-of-options", f"{since}..HEAD", "--", ".")
    except (UsageError, OSError):
        return []
    return found.stdout.decode("utf-8", "replace").splitlines() if found.returncode == 0 else []


def _git(folder: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    # Whose folder it is must not matter, and no monitor may be started that would outlive us.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(folder), *args]
    environ = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environ |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environ, timeout=ANSWER_WITHIN
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"git did not answer within {ANSWER_WITHIN:g} s in {folder}", code=Code.BUNDLE, hint="see what holds it up"
        ) from None
    except OSError as error:
        raise UsageError(
            f"git can't be started: {error.strerror}", code=Code.BUNDLE, hint="see that `git --version` works here"
        ) from error


def _marked(folder: Path) -> Path | None:
    """Return the nearest folder, this one or around it, that git would take for a work tree."""
    here = folder.absolute()
    return next((place for place in (here, *here.parents) if (place / ".git").exists()), None)


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
