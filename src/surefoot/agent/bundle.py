# SPDX-License-Identifier: Apache-2.0
"""The bundle: the files a deployment runs from, as they were when it was accepted, named by their digest.

Guarantees: the same files give the same digest on every machine (it is of the archive before compression: names
sorted, owner and time left out, the executable bit kept); what is unpacked is what was packed, whole or not at all;
nothing is ever written outside the folder it is unpacked into. In a git work tree the tracked files are packed with
their present content, else all but Surefoot's own folder; never the store, if it is a file in there. Neither side
holds more than a few MiB in memory.

It does not guarantee one instant: a file that is written to while it is packed is read again, and if it never rests,
packed as it was last seen, with a warning.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from surefoot.agent.worktree import commit_of, tracked
from surefoot.core.errors import Code, SurefootError, UsageError

__all__ = ["LARGEST", "Bundle", "commit_of", "pack", "unpack"]

#: A bundle goes through the store for each takeover: a larger one is a mistake, such as a build folder.
LARGEST = 512 * 1024 * 1024
CHUNK = 1024 * 1024
#: Beyond this, what is packed waits on the disk.
IN_MEMORY = 8 * 1024 * 1024
#: How often a file is read that is being written to.
READS = 3
#: Skipped files that warnings name; the rest are counted.
NAMED = 5
OWN_FOLDER = b".surefoot"
#: What there is of a store in SQLite: the file, what SQLite keeps beside it, and who is present.
_STORE = (b"", b"-wal", b"-shm", b"-journal", b".presence")
#: What the archive adds to a file: its header, its name if it is a long one, and what fills the last block.
_OVERHEAD = 2048


@dataclass(frozen=True)
class Bundle:
    """A packed folder: `files` counts files and links, `size` is of the packed bytes, `warnings` are for its owner."""

    digest: str
    files: int
    size: int
    warnings: tuple[str, ...]
    _data: IO[bytes] = field(repr=False)

    def chunks(self) -> Iterator[bytes]:
        """The packed bytes in pieces; may be asked for again."""
        place = 0
        while True:
            self._data.seek(place)
            if not (chunk := self._data.read(CHUNK)):
                return
            place += len(chunk)
            yield chunk

    def close(self) -> None:
        """Let go of them."""
        self._data.close()


def pack(folder: Path, config: Path | None = None, *, store: str = "", largest: int = LARGEST) -> Bundle:
    """Pack a folder, and of untracked files the config, without the `store` (a path, or a URL) that may lie in it.
    UsageError (SF-BUNDLE) if it can't be read or is too large.
    """
    packing = _Packing(folder, largest, store)
    return packing.bundle(packing.choose(config))


def unpack(chunks: Iterable[bytes], into: Path, digest: str, *, largest: int = LARGEST) -> None:
    """Unpack a bundle into a folder that is not there yet. SurefootError (SF-BUNDLE) if its digest is another,
    (SF-AGENT-FOLDER) if there is no room, say.
    """
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
        try:
            raw = _Unzipped(chunks, largest + tarfile.RECORDSIZE)
            _extract(raw, os.fsencode(partial))
            raw.finish(digest)
            partial.rename(into)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise _damaged(str(error)) from error
    except FileExistsError as error:
        raise _damaged("a name is in it twice") from error
    except OSError as error:
        raise SurefootError(
            f"the bundle can't be unpacked into {into}: {error.strerror or error}",
            code=Code.AGENT_FOLDER,
            hint="see that the agent's folder is writable and has room",
        ) from error


# -- packing -------------------------------------------------------------------------------------------


class _Packing:
    """One folder on its way into a bundle."""

    def __init__(self, folder: Path, largest: int, store: str) -> None:
        self._folder = folder
        self._root = os.fsencode(folder)
        place = os.path.relpath(os.path.realpath(os.fsencode(store)), os.path.realpath(self._root))
        self._store = {place + part for part in _STORE} if store else set()
        self._largest = largest
        self._skipped: list[bytes] = []
        self._restless: list[bytes] = []
        self._notes: list[str] = []

    def choose(self, config: Path | None) -> list[bytes]:
        """Return the names to pack, in their order."""
        found = tracked(self._folder)
        names = iter(found) if found is not None else _all_names(self._root)
        chosen = set(self._measured(name for name in names if not self._is_ours(name)))
        if found == set():
            self._notes.append(
                f"git tracks none of the files in {self._folder}: the config is all that is deployed; git add the rest"
            )
        if config is not None and Path(os.path.abspath(config)).parent == Path(os.path.abspath(self._folder)):  # noqa: PTH100
            chosen.add(os.fsencode(config.name))
        return sorted(chosen)

    def _is_ours(self, name: bytes) -> bool:
        """Whether a file is no part of the project: each bundle would hold all before it, since the store does."""
        return name.split(b"/", 1)[0] == OWN_FOLDER or name in self._store or name.rpartition(b"/")[0] in self._store

    def _measured(self, names: Iterable[bytes]) -> Iterator[bytes]:
        """Pass names through; refuse as soon as they are too much, before anything was read."""
        sizes: dict[bytes, int] = {}
        total = 0
        for name in names:
            try:
                found = os.lstat(os.path.join(self._root, name))  # noqa: PTH118 - bytes
                size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            except OSError:
                size = 0  # whatever is wrong with it is told when it is read
            sizes[name] = size
            total += size + _OVERHEAD
            if total > self._largest:
                raise self._too_large(sizes)
            yield name

    def bundle(self, names: list[bytes]) -> Bundle:
        """Pack these."""
        spool = _spool()
        digest = hashlib.sha256()
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=spool, mtime=0) as packed:
            raw = _Hashing(packed, digest)
            with tarfile.open(
                fileobj=raw, mode="w|", format=tarfile.PAX_FORMAT, encoding=_ENCODING, errors=_ERRORS
            ) as tar:
                count = sum(self._add(tar, name) for name in names)
        return Bundle(f"sha256:{digest.hexdigest()}", count, spool.tell(), tuple(self._warnings()), spool)

    def _add(self, tar: tarfile.TarFile, name: bytes) -> bool:
        """Add one file; False for what is not (or no longer) there, and for what is no file."""
        path = os.path.join(self._root, name)  # noqa: PTH118 - bytes
        info = tarfile.TarInfo(_text(name))
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, _text(os.readlink(path))  # noqa: PTH115
                tar.addfile(info)
            elif stat.S_ISDIR(mode):  # empty, or a submodule that was not checked out
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                return False
            elif stat.S_ISREG(mode):
                self._add_file(tar, info, path, name)
            else:
                self._skipped.append(name)
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False  # tracked, but deleted; or gone since the folder was listed
        except OSError as error:
            shown = os.fsdecode(path)
            raise UsageError(
                f"{shown!r} can't be packed: {error.strerror}", code=Code.BUNDLE, hint=_READABLE
            ) from error
        return True

    def _add_file(self, tar: tarfile.TarFile, info: tarfile.TarInfo, path: bytes, name: bytes) -> None:
        for turn in range(READS):
            content = _spool()
            # A file may have become a fifo since it was looked at: opening that would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb", buffering=0) as file, content:
                before = os.fstat(descriptor)
                if before.st_size > self._largest:
                    raise self._too_large({name: before.st_size})
                info.size = _copy(file, content, before.st_size + 1)
                after = os.fstat(descriptor)
                rested = (before.st_mtime_ns, info.size) == (after.st_mtime_ns, after.st_size)
                if rested or turn == READS - 1:
                    info.mode = 0o755 if after.st_mode & stat.S_IXUSR else 0o644
                    content.seek(0)
                    tar.addfile(info, content)
                    break
        if not rested:
            self._restless.append(name)

    def _warnings(self) -> Iterator[str]:
        yield from self._notes
        if self._skipped:
            yield f"not deployed, because they are no files: {_listed(self._skipped)}"
        if self._restless:
            yield f"changed while they were packed, and may be incomplete: {_listed(self._restless)}"

    def _too_large(self, sizes: dict[bytes, int]) -> UsageError:
        tops: Counter[str] = Counter()
        for name, size in sizes.items():
            top, slash, _ = name.partition(b"/")
            tops[_shown(top + slash)] += size + _OVERHEAD
        file = max(sizes, key=lambda name: sizes[name])
        named = ", ".join(f"{name} ({_mib(size)})" for name, size in tops.most_common(3))
        single = f"; the largest file: {_shown(file)} ({_mib(sizes[file])})" if b"/" in file else ""
        return UsageError(
            f"{self._folder} holds more than {_mib(self._largest)} to deploy from; the most of it: {named}{single}",
            code=Code.BUNDLE,
            hint="keep what is built out of the folder, or in a git work tree untracked",
        )


def _all_names(root: bytes) -> Iterator[bytes]:
    """Yield all files and links below a folder, and the folders that are empty."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            shown = os.fsdecode(error.filename)
            raise UsageError(
                f"{shown!r} can't be packed: {error.strerror}", code=Code.BUNDLE, hint=_READABLE
            ) from error

    for parent, folders, files in os.walk(root, onerror=fail):
        relative = b"" if parent == root else os.path.relpath(parent, root) + b"/"
        if relative == b"":
            folders[:] = [name for name in folders if name != OWN_FOLDER]
        elif not folders and not files:
            yield relative[:-1]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118 - bytes
        for name in (*files, *links):
            yield relative + name


class _Hashing(io.RawIOBase):
    """Takes the archive's bytes on their way to compression."""

    def __init__(self, target: gzip.GzipFile, digest: hashlib._Hash) -> None:
        self._target = target
        self._digest = digest

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._digest.update(data)
        return self._target.write(data)


# -- unpacking -----------------------------------------------------------------------------------------


class _Unzipped(io.RawIOBase):
    """The archive's bytes, read once from beginning to end, counted and hashed."""

    def __init__(self, chunks: Iterable[bytes], largest: int) -> None:
        self._chunks = iter(chunks)
        self._unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._digest = hashlib.sha256()
        self._left = largest
        self._ready = b""

    def read(self, size: int = -1) -> bytes:
        while not self._ready and not self._unzip.eof:
            packed = self._unzip.unconsumed_tail or next(self._chunks, None)
            if packed is None:
                raise _damaged("its end is missing")
            self._ready = self._unzip.decompress(packed, CHUNK)
            self._digest.update(self._ready)
            self._left -= len(self._ready)
            if self._left < 0:
                raise _damaged("it is larger than any bundle may be")
        piece, self._ready = (self._ready[:size], self._ready[size:]) if size >= 0 else (self._ready, b"")
        return piece

    def finish(self, digest: str) -> None:
        """Read to the end; refuse what has another digest."""
        while self.read(CHUNK):
            pass
        if self._unzip.unused_data or next(self._chunks, None):
            raise _damaged("something follows its end")
        if f"sha256:{self._digest.hexdigest()}" != digest:
            raise _damaged("its digest is another")


def _extract(raw: _Unzipped, into: bytes) -> None:
    """Write an archive's files into a new folder of ours.

    Links come last, when all else is there: so nothing is ever written through one, and they may point anywhere, as
    they did where they were packed.
    """
    links: dict[bytes, bytes] = {}
    made = {into}
    with tarfile.open(fileobj=raw, mode="r|", encoding=_ENCODING, errors=_ERRORS) as tar:
        for member in tar:
            path = _inside(into, member.name)
            if member.issym():
                links[path] = _bytes(member.linkname)
            elif member.isdir():
                _make_folder(path, made)
            elif member.isreg():
                _make_folder(os.path.dirname(path), made)  # noqa: PTH120 - bytes
                content = tar.extractfile(member)
                assert content is not None
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    _copy(content, file, member.size)
                    os.fchmod(descriptor, 0o755 if member.mode & stat.S_IXUSR else 0o644)
            else:
                raise _damaged(f"{member.name!r} is neither file nor link")
    for path, target in links.items():
        _make_folder(os.path.dirname(path), made)  # noqa: PTH120 - bytes
        os.symlink(target, path)  # noqa: PTH211 - bytes


def _make_folder(path: bytes, made: set[bytes]) -> None:
    if path in made:
        return
    _make_folder(os.path.dirname(path), made)  # noqa: PTH120 - bytes
    os.mkdir(path, 0o755)  # noqa: PTH102 - bytes
    made.add(path)


def _inside(into: bytes, name: str) -> bytes:
    """Return where a member goes; refuse one that would leave the folder."""
    parts = _bytes(name).split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise _damaged(f"{name!r} is no name of a file in it")
    return b"/".join((into, *parts))


# -- small ---------------------------------------------------------------------------------------------

#: Names are bytes to the kernel; the archive takes them as text that gives them back.
_ENCODING, _ERRORS = "utf-8", "surrogateescape"
_READABLE = "make it readable, or move it out of the folder"


def _text(name: bytes) -> str:
    return name.decode(_ENCODING, _ERRORS)


def _bytes(name: str) -> bytes:
    return name.encode(_ENCODING, _ERRORS)


class _Spool(tempfile.SpooledTemporaryFile[bytes]):
    """What is packed, until it is sent. That there is no room for it is never taken for a fault of what is packed."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
            self.flush()
        except OSError as error:
            raise UsageError(
                f"there is no room for what is packed: {error.strerror}",
                code=Code.BUNDLE,
                hint="make room in the folder for temporary files, or set TMPDIR to another one",
            ) from error
        return written


def _spool() -> _Spool:
    return _Spool(max_size=IN_MEMORY)


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> int:
    """Copy at most so many bytes; return how many there were."""
    copied = 0
    while copied < most and (data := source.read(min(CHUNK, most - copied))):
        target.write(data)
        copied += len(data)
    return copied


def _listed(names: list[bytes]) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(_shown, names[:NAMED])) + more


def _shown(name: bytes) -> str:
    """Return a name as it may be told: one that would mislead is quoted."""
    text = name.decode("utf-8", "replace")
    return text if text.isprintable() else repr(text)


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB" if size >= 1024 * 1024 else f"{size / 1024:.0f} KiB"


def _damaged(how: str) -> SurefootError:
    return SurefootError(
        f"the bundle in the store is damaged: {how}", code=Code.BUNDLE, hint="submit the deployment again"
    )
