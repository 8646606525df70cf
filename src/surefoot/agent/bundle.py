# SPDX-License-Identifier: Apache-2.0
"""The bundle: the files a deployment runs from, as they were when it was accepted, named by their digest.

Guarantees: the same files give the same digest on every machine (names sorted; owner and time left out; the executable bit kept); what is unpacked is
what was packed, whole or not at all; nothing is ever written outside the folder it is unpacked into. In a git work tree the tracked files are
packed with their present content, else all files but Surefoot's own folder.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from surefoot.core.errors import Code, SurefootError, UsageError

#: A bundle goes through the store for each takeover: a larger one is a mistake, such as a build folder.
LARGEST = 512 * 1024 * 1024
CHUNK = 1024 * 1024
OWN_FOLDER = ".surefoot"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed folder. `size` is of the packed bytes."""

    digest: str
    data: bytes
    files: int

    @property
    def size(self) -> int:
        """Packed bytes."""
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        """The packed bytes in pieces."""
        return (self.data[i : i + CHUNK] for i in range(0, len(self.data), CHUNK))


def pack(folder: Path, config: Path | None = None) -> Bundle:
    """Pack a folder, the config file always included. UsageError (SF-BUNDLE) if it can't be read or is too large."""
    names = _tracked(folder)
    if names is None:
        names = _all_files(folder)
    if config is not None and config.resolve().is_relative_to(folder.resolve()):
        names.add(os.fsencode(config.resolve().relative_to(folder.resolve())))
    raw = io.BytesIO()
    sizes: dict[bytes, int] = {}
    count = 0
    with tarfile.open(
        fileobj=raw, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name in sorted(names):
            size = _add(tar, folder, name)
            if size is None:
                continue
            count += 1
            sizes[name] = size
            if raw.tell() > LARGEST:
                raise _too_large(folder, sizes)
    packed = gzip.compress(raw.getvalue(), compresslevel=1, mtime=0)
    return Bundle(f"sha256:{hashlib.sha256(packed).hexdigest()}", packed, count)


def unpack(chunks: Iterable[bytes], into: Path, digest: str) -> None:
    """Unpack a bundle into a folder that does not exist yet. SurefootError (SF-BUNDLE) if it is not what its digest says."""
    data = b"".join(chunks)
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise SurefootError("the bundle in the store is damaged: its digest is another", code=Code.BUNDLE)
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(into.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data)), encoding="utf-8", errors="surrogateescape") as tar:
        tar.extractall(partial, filter=_safe)
    partial.rename(into)


def commit_of(folder: Path) -> str | None:
    """Return the git commit that the folder is at, `-dirty` behind it if files differ; None outside of git."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return head.decode().strip() + ("-dirty" if changed else "")


def _git(folder: Path, *args: str) -> bytes | None:
    """Return what git says; None where there is no git or no work tree."""
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *args]
    try:
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"})
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _tracked(folder: Path) -> set[bytes] | None:
    listed = _git(folder, "ls-files", "-z", "--cached", "--recurse-submodules", "--", ".")
    return None if listed is None else {name for name in listed.split(b"\0") if name}


def _all_files(folder: Path) -> set[bytes]:
    found: set[bytes] = set()
    root = os.fsencode(folder)

    def fail(error: OSError) -> None:
        raise UsageError(
            f"{error.filename}: {error.strerror}",
            code=Code.BUNDLE,
            hint="make it readable, or move it out of the folder",
        )

    for parent, folders, files in os.walk(root, onerror=fail):
        at_top = parent == root
        folders[:] = [f for f in folders if not (at_top and f == OWN_FOLDER.encode()) and f != b".git"]
        links = [f for f in folders if (Path(os.fsdecode(parent)) / os.fsdecode(f)).is_symlink()]
        relative = b"" if at_top else parent[len(root) :].lstrip(b"/") + b"/"
        found.update(relative + name for name in (*files, *links))
    return found


def _add(tar: tarfile.TarFile, folder: Path, name: bytes) -> int | None:
    """Add one file; return its size, None for what is not (or no longer) there, and for what is no file."""
    path = folder / os.fsdecode(name)
    info = tarfile.TarInfo(os.fsdecode(name))
    try:
        found = path.lstat()
        info.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        if stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            tar.addfile(info)
            return 0
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size > LARGEST:
            raise _too_large(folder, {name: found.st_size})
        data = path.read_bytes()
    except FileNotFoundError:
        return None  # tracked, but deleted
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", code=Code.BUNDLE, hint="make it readable") from error
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return len(data)


def _safe(member: tarfile.TarInfo, into: str) -> tarfile.TarInfo | None:
    """Keep what stays inside; links may point anywhere, as they did where they were packed, but nothing is written through them."""
    checked = tarfile.tar_filter(member, into)
    checked.mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    return checked


def _too_large(folder: Path, sizes: dict[bytes, int]) -> UsageError:
    biggest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{os.fsdecode(name)} ({size // 1024 // 1024} MiB)" for name, size in biggest)
    return UsageError(
        f"{folder} holds more than {LARGEST // 1024 // 1024} MiB to deploy from; the largest: {named}",
        code=Code.BUNDLE,
        hint="keep build results out of the folder, or untracked by git",
    )
