# SPDX-License-Identifier: Apache-2.0
"""What `surefoot init` writes: small projects that pass `surefoot check` as they are.

Guarantees: nothing that exists is overwritten, and a template is written whole or not at all.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from surefoot.config.problems import did_you_mean
from surefoot.core.errors import Code, UsageError

DEFAULT = "default"
_HERE = Path(__file__).parent


def templates() -> list[str]:
    """Return the names of the templates, the default first."""
    names = sorted(entry.parent.name for entry in _HERE.glob("*/surefoot.yml"))
    return sorted(names, key=lambda name: name != DEFAULT)


def write_template(name: str | None, folder: Path) -> list[Path]:
    """Write a template's files into a folder; return them, the config first. Refuses if one of them exists."""
    source = _HERE / _known(name or DEFAULT)
    files = sorted((f for f in source.rglob("*") if f.is_file()), key=lambda f: (f.name != "surefoot.yml", f))
    targets = {file: folder / file.relative_to(source) for file in files if "__pycache__" not in file.parts}
    if taken := [target for target in targets.values() if target.exists() or target.is_symlink()]:
        names = ", ".join(str(path.relative_to(folder)) for path in taken)
        raise UsageError(f"{names} exists and is not overwritten", hint="run surefoot init in an empty folder")
    written: list[Path] = []
    try:
        for file, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(file.read_bytes(), target)
            written.append(target)
    except OSError as error:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise UsageError(
            f"{folder} can't be written to: {error.strerror or error}", hint="check its permissions and free space"
        ) from error
    return written


def _known(name: str) -> str:
    if name not in templates():
        raise UsageError(
            f"there is no example {name!r}{did_you_mean(name, templates())}",
            code=Code.USAGE,
            hint=f"there are: {', '.join(templates())}",
        )
    return name


def _write(content: bytes, target: Path) -> None:
    """Write a new file; a script may be executed, however the package was installed."""
    with target.open("xb") as file:
        try:
            file.write(content)
        except OSError:
            target.unlink()
            raise
    if content.startswith(b"#!"):
        target.chmod(target.stat().st_mode | 0o111)
