# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PTH115, PTH118, PTH123, PTH208, PTH211
"""Bundles: packed from real folders and real git work trees, unpacked again, damaged, and attacked.

Names are bytes here where they matter, as they are to the kernel.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from surefoot.agent import bundle
from surefoot.agent.bundle import commit_of, pack, unpack
from surefoot.core.errors import Code, Exit, SurefootError
from surefoot.store import open_store

ODD_NAMES = [
    b"two\nlines",
    "grüße-日本-🦶".encode(),
    b"not-utf8-\xff\xfe",
    b"-rf",
    b" spaces at the ends ",
    b"quotes'\"`$(x)",
    b"n" * 250,
    b"back\\slash",
    b"a" * 120 + b"\xff",
]


def git(folder: Path, *args: str) -> str:
    """Run git as somebody, whatever the machine's own settings."""
    environ = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    options = ("-c", "protocol.file.allow=always", "-c", "safe.directory=*", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *options, "-C", str(folder), *args], check=True, capture_output=True, text=True, env=environ
    ).stdout


def write(path: Path, text: str = "x", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project without git."""
    root = tmp_path / "project"
    write(root / "surefoot.yml", "project: p\n")
    write(root / "scripts/run.sh", "#!/bin/sh\n", 0o755)
    return root


@pytest.fixture
def tree(folder: Path) -> Path:
    """The same, in a git work tree, all committed."""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def unpacked(packed: bundle.Bundle, tmp_path: Path) -> Path:
    into = tmp_path / "agent" / "work" / "production-1"
    unpack(packed.chunks(), into, packed.digest)
    return into


def names(root: Path) -> set[str]:
    """All files and links below a folder, and its empty folders (with a slash)."""
    found = set()
    for parent, folders, files in os.walk(root):
        place = Path(parent)
        found |= {str((place / name).relative_to(root)) for name in files}
        found |= {str((place / name).relative_to(root)) for name in folders if (place / name).is_symlink()}
        if not folders and not files and place != root:
            found.add(f"{place.relative_to(root)}/")
    return found


def raw(packed: bundle.Bundle) -> bytes:
    return gzip.decompress(b"".join(packed.chunks()))


# -- what is packed ------------------------------------------------------------------------------------


def test_what_is_unpacked_is_what_was_packed(folder: Path, tmp_path: Path) -> None:
    write(folder / "data.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    write(folder / "empty", "")
    (folder / "link").symlink_to("scripts/run.sh")
    (folder / "dangling").symlink_to("../nowhere")
    (folder / "to-folder").symlink_to("scripts")

    packed = pack(folder, folder / "surefoot.yml")
    into = unpacked(packed, tmp_path)

    assert names(into) == names(folder)
    assert (into / "data.bin").read_bytes() == (folder / "data.bin").read_bytes()
    assert os.access(into / "scripts/run.sh", os.X_OK)
    assert not (into / "data.bin").stat().st_mode & 0o111
    assert [os.readlink(into / name) for name in ("link", "dangling", "to-folder")] == [
        "scripts/run.sh",
        "../nowhere",
        "scripts",
    ]
    assert packed.files == 7
    assert packed.size == sum(map(len, packed.chunks()))
    assert packed.warnings == ()


def test_same_files_have_the_same_digest_whatever_their_owner_time_and_order(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    write(other / "scripts/run.sh", "#!/bin/sh\n", 0o700)
    write(other / "surefoot.yml", "project: p\n", 0o600)
    os.utime(other / "surefoot.yml", (1, 1))
    if os.geteuid() == 0:
        os.chown(other / "surefoot.yml", 12, 34)

    here, there = pack(folder), pack(other)

    assert here.digest == there.digest
    assert list(here.chunks()) == list(there.chunks())
    assert raw(here).count(b"root") == 0


def test_the_digest_does_not_depend_on_the_compression(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder)
    assert packed.digest == f"sha256:{hashlib.sha256(raw(packed)).hexdigest()}"
    stronger = gzip.compress(raw(packed), 9)
    unpack([stronger], tmp_path / "into", packed.digest)
    assert names(tmp_path / "into") == names(folder)


@pytest.mark.parametrize("change", ["content", "mode", "name", "link"])
def test_any_difference_gives_another_digest(folder: Path, change: str) -> None:
    (folder / "link").symlink_to("a")
    before = pack(folder).digest
    match change:
        case "content":
            write(folder / "surefoot.yml", "project: q\n")
        case "mode":
            (folder / "surefoot.yml").chmod(0o755)
        case "name":
            (folder / "surefoot.yml").rename(folder / "surefoot.yaml")
        case _:
            (folder / "link").unlink()
            (folder / "link").symlink_to("b")
    assert pack(folder).digest != before


def test_odd_names_come_through(folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate(ODD_NAMES):
        place = os.path.join(os.fsencode(folder), name)
        with open(place, "w") as file:
            file.write(str(number))
        os.symlink(name, os.path.join(os.fsencode(folder), b"l%d" % number))
    into = os.fsencode(unpacked(pack(folder), tmp_path))
    for number, name in enumerate(ODD_NAMES):
        with open(os.path.join(into, name)) as file:
            assert file.read() == str(number)
        assert os.readlink(os.path.join(into, b"l%d" % number)) == name


def test_odd_names_come_through_git(tree: Path, tmp_path: Path) -> None:
    for name in ODD_NAMES:
        with open(os.path.join(os.fsencode(tree), name), "w") as file:
            file.write("tracked")
    git(tree, "add", "--all")
    assert set(os.listdir(os.fsencode(unpacked(pack(tree), tmp_path)))) >= set(ODD_NAMES)


def test_without_git_all_but_our_own_folder_is_packed(folder: Path, tmp_path: Path) -> None:
    write(folder / ".surefoot/surefoot.db")
    write(folder / "deep/.surefoot/kept")
    write(folder / ".hidden")
    (folder / "logs/old").mkdir(parents=True)
    into = unpacked(pack(folder), tmp_path)
    assert names(into) == {"surefoot.yml", "scripts/run.sh", "deep/.surefoot/kept", ".hidden", "logs/old/"}


def test_in_a_work_tree_tracked_files_are_packed_as_they_are_now(tree: Path, tmp_path: Path) -> None:
    write(tree / "deleted")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "second")
    (tree / "deleted").unlink()
    write(tree / "scripts/run.sh", "changed", 0o755)
    write(tree / "added")
    git(tree, "add", "added")
    write(tree / "untracked")
    write(tree / ".surefoot/surefoot.db")

    into = unpacked(pack(tree, tree / "surefoot.yml"), tmp_path)

    assert names(into) == {"surefoot.yml", "scripts/run.sh", "added"}
    assert (into / "scripts/run.sh").read_text() == "changed"


def test_our_own_folder_is_left_out_though_somebody_tracked_it(tree: Path, tmp_path: Path) -> None:
    write(tree / ".surefoot/surefoot.db")
    git(tree, "add", "--all", "--force")
    assert names(unpacked(pack(tree), tmp_path)) == {"surefoot.yml", "scripts/run.sh"}


def test_a_store_that_lies_in_the_project_is_left_out(folder: Path, tmp_path: Path) -> None:
    write(folder / "state/store.db.backup")
    place = str(folder / "state/store.db")
    store = open_store(place)
    try:
        store.enter("agent", "now")
        assert (folder / "state/store.db-wal").exists() and any((folder / "state/store.db.presence").iterdir())
        (tmp_path / "way").symlink_to(folder)
        through_a_link = str(tmp_path / "way/state/store.db")
        packed = pack(folder, store=place)
        assert names(unpacked(packed, tmp_path)) == {"surefoot.yml", "scripts/run.sh", "state/store.db.backup"}
        assert pack(folder, store=through_a_link).digest == packed.digest
    finally:
        store.close()


def test_tracked_folder_that_became_a_file_is_a_deletion(tree: Path, tmp_path: Path) -> None:
    (tree / "scripts/run.sh").unlink()
    (tree / "scripts").rmdir()
    write(tree / "scripts", "now a file")
    assert names(unpacked(pack(tree), tmp_path)) == {"surefoot.yml"}


def test_config_is_packed_though_nobody_tracks_it(tree: Path, tmp_path: Path) -> None:
    write(tree / "other.yml", "project: other\n")
    write(tree / "untracked.yml")
    assert "other.yml" in names(unpacked(pack(tree, tree / "other.yml"), tmp_path))
    assert not any(pack(tree, tree / "other.yml").warnings)


def test_config_elsewhere_is_not_packed(folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere.yml")
    assert "elsewhere.yml" not in names(unpacked(pack(folder, outside), tmp_path))


def test_folder_below_the_work_tree_s_top_is_packed_alone(tree: Path, tmp_path: Path) -> None:
    write(tree / "deploy/surefoot.yml")
    write(tree / "deploy/in/step.sh")
    git(tree, "add", ".")
    write(tree / "deploy/untracked")
    assert names(unpacked(pack(tree / "deploy"), tmp_path)) == {"surefoot.yml", "in/step.sh"}


def test_folder_that_the_work_tree_around_it_knows_nothing_of_is_packed_whole(tree: Path, tmp_path: Path) -> None:
    """A home folder under git for its dot-files must not empty every project in it."""
    inner = tree / "projects/shop"
    write(inner / "surefoot.yml")
    write(inner / "step.sh")
    assert names(unpacked(pack(inner), tmp_path)) == {"surefoot.yml", "step.sh"}
    assert commit_of(inner) is None


def test_new_work_tree_with_nothing_tracked_deploys_the_config_and_says_so(folder: Path, tmp_path: Path) -> None:
    git(folder, "init", "-q")
    packed = pack(folder, folder / "surefoot.yml")
    assert names(unpacked(packed, tmp_path)) == {"surefoot.yml"}
    assert "git add" in packed.warnings[0]


def test_files_of_submodules_are_packed(tree: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    write(library / "lib.sh")
    git(library, "init", "-q")
    git(library, "add", ".")
    git(library, "commit", "-qm", "first")
    git(tree, "submodule", "--quiet", "add", str(library), "vendor/library")
    git(tree, "submodule", "--quiet", "add", str(library), "vendor/absent")
    git(tree, "commit", "-qm", "second")
    git(tree, "submodule", "--quiet", "deinit", "--force", "vendor/absent")

    into = unpacked(pack(tree), tmp_path)

    assert (into / "vendor/library/lib.sh").read_text() == "x"
    assert list((into / "vendor/absent").iterdir()) == []


def test_half_merged_file_is_packed_once(tree: Path) -> None:
    git(tree, "checkout", "-q", "-b", "other")
    write(tree / "surefoot.yml", "project: other\n")
    git(tree, "commit", "-qam", "theirs")
    git(tree, "checkout", "-q", "main")
    write(tree / "surefoot.yml", "project: ours\n")
    git(tree, "commit", "-qam", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        git(tree, "merge", "-q", "other")
    assert pack(tree).files == 2


def test_hook_s_variables_do_not_lead_to_another_repository(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    write(other / "theirs")
    git(other, "init", "-q")
    git(other, "add", ".")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert names(unpacked(pack(tree), tmp_path)) == {"surefoot.yml", "scripts/run.sh"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_work_tree_of_another_user_is_packed(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for parent, folders, files in os.walk(tree):
        for name in (*folders, *files):
            os.lchown(Path(parent) / name, 12345, 12345)
    os.chown(tree, 12345, 12345)
    refused = subprocess.run(["git", "-C", str(tree), "status"], capture_output=True, check=False)
    assert b"dubious ownership" in refused.stderr

    write(tree / "untracked")
    assert names(unpacked(pack(tree), tmp_path)) == {"surefoot.yml", "scripts/run.sh"}
    assert commit_of(tree) is not None


def test_work_tree_without_git_installed_is_refused(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its untracked files may be what must not leave the machine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SurefootError) as caught:
        pack(tree)
    assert caught.value.code is Code.BUNDLE
    assert caught.value.exit_code is Exit.USAGE
    assert "install git" in caught.value.hint
    assert commit_of(tree) is None


def test_git_that_can_t_be_started_is_refused(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("no program")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SurefootError, match="git can't be started: ") as caught:
        pack(tree)
    assert caught.value.code is Code.BUNDLE
    assert commit_of(tree) is None


@pytest.mark.parametrize("large", [True, False])
def test_want_of_room_is_no_fault_of_the_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """A large file was taken for one that is gone, and left out."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for number in range(1 if large else 4):
        (folder / f"file-{number}").write_bytes(os.urandom((9 if large else 3) * 1024 * 1024))
    with pytest.raises(SurefootError, match="there is no room for what is packed: ") as caught:
        pack(folder)
    assert caught.value.code is Code.BUNDLE and "TMPDIR" in caught.value.hint


def test_plain_folder_needs_no_git(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pack(folder).files == 2


@pytest.mark.parametrize("broken", ["index", "config", "pointer"])
def test_work_tree_that_git_can_t_read_is_refused(tree: Path, broken: str) -> None:
    match broken:
        case "index":
            (tree / ".git/index").write_bytes(b"garbage" * 100)
        case "config":
            (tree / ".git/config").write_text("[core\n")
        case _:
            (tree / ".git").rename(tree / ".was-git")
            write(tree / ".git", "gitdir: /nowhere/at/all\n")
    with pytest.raises(SurefootError) as caught:
        pack(tree)
    assert caught.value.code is Code.BUNDLE
    assert str(tree) in caught.value.message
    assert caught.value.hint
    assert commit_of(tree) is None


def test_read_only_folder_is_packed(tree: Path, tmp_path: Path) -> None:
    everything = [tree, *tree.rglob("*")]
    for path in everything:
        path.chmod(path.stat().st_mode & 0o555)
    before = {path: path.stat().st_mtime_ns for path in everything}
    try:
        packed = pack(tree, tree / "surefoot.yml")
        assert commit_of(tree)
    finally:
        for path in everything:
            path.chmod(path.stat().st_mode | 0o700)
    assert packed.files == 2
    assert {path: path.stat().st_mtime_ns for path in everything} == before
    assert os.access(unpacked(packed, tmp_path) / "surefoot.yml", os.W_OK)


def test_sockets_and_fifos_are_skipped_with_a_warning(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "fifo")
    server = socket.socket(socket.AF_UNIX)
    try:
        server.bind(str(folder / "socket"))
        packed = pack(folder)
    finally:
        server.close()
    assert names(unpacked(packed, tmp_path)) == {"surefoot.yml", "scripts/run.sh"}
    (warning,) = packed.warnings
    assert "fifo" in warning
    assert "socket" in warning


@pytest.mark.parametrize(("writes", "rests"), [(1, True), (2, True), (100, False)])
def test_file_that_is_written_to_while_it_is_read_is_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, rests: bool
) -> None:
    log = write(folder / "growing.log", "first\n")
    copy = bundle._copy

    def copy_and_grow(source: IO[bytes], target: IO[bytes], most: int) -> int:
        nonlocal writes
        size = copy(source, target, most)
        if os.path.samestat(os.fstat(source.fileno()), log.stat()) and writes:
            writes -= 1
            with log.open("a") as file:
                file.write("another\n")
        return size

    monkeypatch.setattr(bundle, "_copy", copy_and_grow)
    packed = pack(folder)
    monkeypatch.undo()
    text = (unpacked(packed, tmp_path) / "growing.log").read_text()
    assert text.startswith("first\n")
    if rests:
        assert text == log.read_text()
        assert packed.warnings == ()
    else:
        assert "growing.log" in packed.warnings[0]


def test_files_that_vanish_while_packed_are_left_out(folder: Path, tmp_path: Path) -> None:
    for number in range(400):
        write(folder / f"f{number}")
    stop = threading.Event()

    def remove() -> None:
        for number in range(0, 400, 2):
            (folder / f"f{number}").unlink()
        stop.set()

    remover = threading.Thread(target=remove)
    remover.start()
    while True:
        last = stop.is_set()
        into = tmp_path / f"into-{random.random()}"
        packed = pack(folder)
        unpack(packed.chunks(), into, packed.digest)
        assert names(into) >= {f"f{number}" for number in range(1, 400, 2)}
        if last:
            break
    remover.join()
    assert len(names(into)) == 202


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(folder: Path) -> None:
    write(folder / "secret.key", mode=0o000)
    with pytest.raises(SurefootError, match=r"secret\.key") as caught:
        pack(folder)
    assert caught.value.code is Code.BUNDLE


def test_folder_that_is_too_large_is_refused_with_what_makes_it_so(folder: Path) -> None:
    for number in range(50):
        write(folder / f"node_modules/m{number}/index.js", "x" * 4000)
    with (folder / "image.iso").open("wb") as file:
        file.truncate(10_000_000)
    with pytest.raises(SurefootError) as caught:
        pack(folder, largest=10_000_000)
    assert caught.value.code is Code.BUNDLE
    assert "image.iso (10 MiB)" in caught.value.message
    assert caught.value.hint

    (folder / "image.iso").unlink()
    with pytest.raises(SurefootError, match="node_modules/"):
        pack(folder, largest=200_000)


def test_the_limit_is_half_a_gibibyte(folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(513 * 1024 * 1024)
    with pytest.raises(SurefootError, match="512 MiB"):
        pack(folder)


def test_folder_of_links_to_itself_ends(folder: Path, tmp_path: Path) -> None:
    (folder / "self").symlink_to(".")
    (folder / "scripts/up").symlink_to("..")
    assert {"self", "scripts/up"} <= names(unpacked(pack(folder), tmp_path))


# -- the commit ----------------------------------------------------------------------------------------


def test_commit_is_head_and_says_if_files_differ(tree: Path) -> None:
    head = git(tree, "rev-parse", "HEAD").strip()
    assert commit_of(tree) == head
    write(tree / "untracked")
    assert commit_of(tree) == head
    write(tree / "surefoot.yml", "project: changed\n")
    assert commit_of(tree) == f"{head}-dirty"


def test_no_commit_without_git_or_before_the_first(folder: Path) -> None:
    assert commit_of(folder) is None
    git(folder, "init", "-q")
    assert commit_of(folder) is None
    git(folder, "add", ".")
    assert commit_of(folder) is None


# -- unpacking what was damaged, or made by an enemy -----------------------------------------------------


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> tuple[list[bytes], str]:
    """Return a bundle as an enemy who can write to the store would make it: its digest fits."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return [gzip.compress(data.getvalue())], f"sha256:{hashlib.sha256(data.getvalue()).hexdigest()}"


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, content


def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    write(folder / "precious", "untouched")
    return folder


ATTACKS: dict[str, Callable[[Path], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "dots": lambda out: [member("../outside/precious", b"evil")],
    "dots inside": lambda out: [member("a/../../outside/precious", b"evil")],
    "absolute": lambda out: [member(str(out / "precious"), b"evil")],
    "dot": lambda out: [member("./a", b"evil")],
    "link then file": lambda out: [member("l", kind=tarfile.SYMTYPE, link=str(out)), member("l/precious", b"evil")],
    "file then link": lambda out: [member("l/new", b"evil"), member("l", kind=tarfile.SYMTYPE, link=str(out))],
    "link in link": lambda out: [
        member("l", kind=tarfile.SYMTYPE, link=str(out)),
        member("l/m", kind=tarfile.SYMTYPE, link="x"),
    ],
    "link overwritten": lambda out: [
        member("l", kind=tarfile.SYMTYPE, link=str(out / "precious")),
        member("l", b"evil"),
    ],
    "hard link": lambda out: [member("h", kind=tarfile.LNKTYPE, link=str(out / "precious")), member("h", b"evil")],
    "device": lambda out: [member("null", kind=tarfile.CHRTYPE)],
    "fifo": lambda out: [member("fifo", kind=tarfile.FIFOTYPE)],
    "twice": lambda out: [member("a", b"1"), member("a", b"2")],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_written_outside_of_the_folder(attack: str, tmp_path: Path) -> None:
    out = outside(tmp_path)
    chunks, digest = archive(*ATTACKS[attack](out))
    with pytest.raises(SurefootError) as caught:
        unpack(chunks, tmp_path / "into", digest)
    assert caught.value.code is Code.BUNDLE
    assert names(out) == {"precious"}
    assert (out / "precious").read_text() == "untouched"
    assert os.listdir(tmp_path) == ["outside"]


def test_no_special_bit_is_set(tmp_path: Path) -> None:
    info, content = member("su", b"evil")
    info.mode = 0o6777
    chunks, digest = archive((info, content))
    unpack(chunks, tmp_path / "into", digest)
    assert stat.S_IMODE((tmp_path / "into/su").stat().st_mode) == 0o755


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "longer", "not gzip", "other files", "not tar", "bomb"])
def test_damaged_bundle_leaves_nothing_behind(folder: Path, tmp_path: Path, how: str) -> None:
    packed = pack(folder)
    data = b"".join(packed.chunks())
    largest = bundle.LARGEST
    match how:
        case "flipped":
            data = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
        case "cut":
            data = data[:-30]
        case "empty":
            data = b""
        case "longer":
            data += b"more"
        case "not gzip":
            data = b"not gzip at all"
        case "other files":
            write(folder / "surefoot.yml", "project: other\n")
            data = b"".join(pack(folder).chunks())
        case "not tar":
            data = gzip.compress(b"x" * 100_000)
        case _:
            data, largest = gzip.compress(b"\0" * 50_000_000), 1_000_000
    into = tmp_path / "agent/into"
    pieces = [data[n : n + 100] for n in range(0, len(data), 100)]
    with pytest.raises(SurefootError) as caught:
        unpack(pieces, into, packed.digest, largest=largest)
    assert caught.value.code is Code.BUNDLE
    assert list(into.parent.iterdir()) == []


def test_unpacking_that_breaks_off_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder)

    def breaks():  # type: ignore[no-untyped-def]
        yield next(packed.chunks())[:50]
        raise ConnectionError("the store went away")

    with pytest.raises((ConnectionError, SurefootError)):
        unpack(breaks(), tmp_path / "agent/into", packed.digest)
    assert list((tmp_path / "agent").iterdir()) == []


def test_what_is_there_already_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "into/precious", "untouched")
    packed = pack(folder)
    with pytest.raises(SurefootError):
        unpack(packed.chunks(), tmp_path / "into", packed.digest)
    assert names(tmp_path / "into") == {"precious"}


def test_packing_and_unpacking_need_little_memory(folder: Path, tmp_path: Path) -> None:
    """Noise and zeros, 80 MB each; the peak is compared with that of a process that only imports."""
    with (folder / "noise").open("wb") as file:
        for seed in range(80):
            file.write(random.Random(seed).randbytes(1_000_000))
    with (folder / "zeros").open("wb") as file:
        file.truncate(80_000_000)
    program = """
import resource, sys
from pathlib import Path
from surefoot.agent.bundle import pack, unpack
if len(sys.argv) > 1:
    packed = pack(Path(sys.argv[1]))
    unpack(packed.chunks(), Path(sys.argv[2]), packed.digest)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

    def peak(*args: str) -> int:
        done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, check=True, text=True)
        return int(done.stdout) * 1024

    assert peak(str(folder), str(tmp_path / "into")) - peak() < 50_000_000
    assert (tmp_path / "into/noise").stat().st_size == 80_000_000
