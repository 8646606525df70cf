# SPDX-License-Identifier: Apache-2.0
"""What must hold of the repository as a whole, whatever it is that the files do."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: In pieces, so that this file passes its own test.
REGISTRIES = [
    ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("debian", "org"), ("npmjs", "com"))
]
MACHINE_PATHS = re.compile("(?:^|[^a-zA-Z0-9_.~}])/(?:" + "|".join(("wo" + "rk", "mn" + "t")) + ")/[a-z]")
#: Tests make hosts of their own that have these.
HOMES = re.compile("(?:^|[^a-zA-Z0-9_.~}])/(?:" + "|".join(("ro" + "ot", "ho" + "me")) + ")/[a-z]")
LEFT_OVER = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
CODE = (".py", ".sh", ".sql")
PROGRAMS = ("Makefile", ".ci/run")


def _tracked() -> list[Path]:
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git work tree: nothing says which files are the project's")
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """The project's files."""
    return _tracked()


@pytest.fixture(scope="module")
def texts(files: list[Path]) -> dict[Path, str]:
    """Their texts, of those that are text."""
    found = {}
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data:
            found[path.relative_to(ROOT)] = data.decode("utf-8", "replace")
    return found


def _lines_with(texts: dict[Path, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def test_the_project_is_found(files: list[Path]) -> None:
    assert ROOT / "src/surefoot/__init__.py" in files
    assert ROOT / "Makefile" in files


def test_every_source_file_names_its_licence_first(texts: dict[Path, str]) -> None:
    def is_source(path: Path) -> bool:
        return path.suffix in CODE or str(path) in PROGRAMS or path.parent == Path("tools")

    def opening(text: str) -> list[str]:
        lines = text.splitlines()
        return lines[1:2] if text.startswith("#!") else lines[:1]

    bare = [
        str(path)
        for path, text in texts.items()
        if is_source(path)
        and text.strip()
        and not any("SPDX-License-Identifier: Apache-2.0" in line for line in opening(text))
        # What `init` writes and the demo makes belongs to its user, and a dump is what a program wrote.
        and "templates" not in path.parts
        and "fixtures" not in path.parts
    ]
    assert bare == []


def test_no_line_holds_a_package_registry(texts: dict[Path, str]) -> None:
    assert _lines_with(texts, re.compile("|".join(map(re.escape, REGISTRIES)))) == []


def test_no_line_holds_a_path_of_one_machine(texts: dict[Path, str]) -> None:
    assert _lines_with(texts, MACHINE_PATHS) == []
    assert _lines_with({path: text for path, text in texts.items() if path.parts[0] != "tests"}, HOMES) == []
    assert _lines_with(texts, re.compile(re.escape(f"{ROOT}/"))) == []


def test_nothing_is_left_to_do_in_a_comment(texts: dict[Path, str]) -> None:
    code = {path: text for path, text in texts.items() if path.suffix in CODE}
    assert _lines_with(code, LEFT_OVER) == []


def test_the_lock_has_a_hash_for_every_package_and_an_address_for_none(texts: dict[Path, str]) -> None:
    lock = texts[Path("requirements.lock")]
    assert "://" not in lock
    assert not re.search(r"^-", lock, re.MULTILINE)
    pinned = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(pinned) > 20
    for package in pinned:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]


def test_the_lock_knows_every_package_that_the_project_asks_for(texts: dict[Path, str]) -> None:
    def name(requirement: str) -> str:
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert found
        return re.sub(r"[-_.]+", "-", found.group()).lower()

    project = tomllib.loads(texts[Path("pyproject.toml")])
    asked = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    locked = {name(line) for line in texts[Path("requirements.lock")].splitlines() if re.match(r"[A-Za-z0-9]", line)}
    assert {name(requirement) for requirement in asked} - locked == set()


def test_programs_can_be_run(files: list[Path]) -> None:
    scripts = [path for path in files if path.read_bytes()[:2] == b"#!" and path.parent.name in ("tools", ".ci")]
    assert scripts
    assert [str(path) for path in scripts if not path.stat().st_mode & 0o100] == []


def test_make_explains_every_target_that_people_call() -> None:
    explained = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = re.findall(r"^  make (\S+) +\S", explained, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(phony)
