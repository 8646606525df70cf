# SPDX-License-Identifier: Apache-2.0
"""Ansible's modules, compiled once for all tests, for the Python of every host.

Ansible sends each task as a zip of sources, which the host's Python compiles anew for each task: that was a quarter of
the processor time of all plays, and is nothing that a test is about. Here a Python that has the folder in its path
takes the code of a source in a zip from there, if the very same source was compiled before. All else is as it is: what
is sent, how, and what is run.
"""

from __future__ import annotations

import _imp
import importlib.util
import marshal
import os
import shutil
import sys
import tempfile
from pathlib import Path

from surefoot.drills.lab import host

#: Names the folder to all processes of the tests.
VARIABLE = "TESTS_COMPILED"
PARTS = ("module_utils", "modules", "_internal")
SITE = """
import _imp, marshal, sys, zipimport
folder = f"{__file__.rpartition('/')[0]}/{sys.implementation.cache_tag}"
plain = zipimport._compile_source
def compiled(path, source):
    try:
        with open(f"{folder}/{_imp.source_hash(0, source).hex()}", "rb") as file:
            return marshal.load(file)
    except OSError:
        return plain(path, source)
zipimport._compile_source = compiled
"""


def make() -> None:
    """Compile them, and have all processes that are started from now on know where."""
    # Hosts have a /tmp, a /root and a /var/lib of their own.
    folder = Path(tempfile.mkdtemp(prefix="surefoot-compiled-", dir="/var/tmp"))
    os.environ[VARIABLE] = str(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    (folder / "sitecustomize.py").write_text(SITE)
    code = folder / (sys.implementation.cache_tag or "")
    code.mkdir()
    spec = importlib.util.find_spec("ansible")
    assert spec is not None and spec.origin is not None
    ansible = Path(spec.origin).parent
    for path in (path for part in PARTS for path in (ansible / part).rglob("*.py")):
        source = path.read_bytes()
        compiled = compile(source, f"ansible/{path.relative_to(ansible)}", "exec", dont_inherit=True)
        (code / _imp.source_hash(0, source).hex()).write_bytes(marshal.dumps(compiled))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def remove() -> None:
    """Remove them."""
    shutil.rmtree(os.environ[VARIABLE], ignore_errors=True)


def settings() -> str:
    """Return what sshd is to set for it in sessions on a host."""
    folder = os.environ.get(VARIABLE)
    return f"PYTHONPATH={folder}" if folder else ""


def use_in_labs() -> None:
    """Have the sshd of all hosts of labs set it; labs themselves know nothing of it."""
    host._SSH_CONFIG = host._SSH_CONFIG.replace("SetEnv SHLVL=2", f"SetEnv SHLVL=2 {settings()}")
