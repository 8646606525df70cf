# SPDX-License-Identifier: Apache-2.0
"""What Ansible works out anew in each process, worked out once for all tests.

Ansible sends each task as a zip of sources, which the host's Python compiles anew for each task; to make that zip, it
parses all these sources for what they import; and each of its commands begins with the same two big files of YAML.
Together that was more than half of the processor time of all plays, and is nothing that a test is about. Here a Python
that has the folder in its path takes what was made of the very same bytes before, if there is any. All else is as it
is: what is sent, how, and what is run.
"""

from __future__ import annotations

import _imp
import ast
import importlib.util
import marshal
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from ansible.release import __version__

from surefoot.drills.lab import host

#: Names the folder to all processes of the tests.
VARIABLE = "TESTS_COMPILED"
PARTS = ("module_utils", "modules", "_internal")
#: The Ansible that looks for imports as we do; another one does it itself.
LOOKS_AS_WE_DO = __version__.startswith("2.19.")
#: Files that each command reads, and the loader that it does so with.
READ = (("config/base.yml", "CSafeLoader"), ("config/ansible_builtin_runtime.yml", "CBaseLoader"))
#: For each Python. That of a host knows no Ansible but what is in the zip. Garbage is not looked for while Ansible or a
#: module of its does nothing but import, nor in what is let go of at their end.
SITE = """
import _imp, atexit, gc, marshal, sys, zipimport
folder = f"{__file__.rpartition('/')[0]}/{sys.implementation.cache_tag}"
plain = zipimport._compile_source
def found(kind, source):
    with open(f"{folder}/{kind}-{_imp.source_hash(0, source).hex()}", "rb") as file:
        return marshal.load(file)
def in_haste():
    if gc.get_threshold()[0] != 100_000:
        gc.set_threshold(100_000, 50, 50)
        atexit.register(gc.freeze)
def compiled(path, source):
    try:
        code = found("code", source)
    except OSError:
        return plain(path, source)
    in_haste()
    return code
zipimport._compile_source = compiled
if len(sys.orig_argv) > 1 and sys.orig_argv[1].rpartition("/")[2].startswith("ansible"):
    import of_ansible
"""
#: For Ansible's own commands. What a module imports is looked for in a source of which only that is left (`imports`).
OF_ANSIBLE = """
import builtins, sitecustomize, sys, yaml
sitecustomize.in_haste()
parse, load = builtins.compile, yaml.load
def compile(source, filename, mode, flags=0, *more, **named):
    if sys._getframe(1).f_globals["__name__"] == "ansible.executor.module_common":
        try:
            source = sitecustomize.found("imports", source)
        except OSError:
            pass
    return parse(source, filename, mode, flags, *more, **named)
def loaded(stream, Loader):
    if Loader.__name__ in ("CSafeLoader", "CBaseLoader"):
        data = stream.read() if hasattr(stream, "read") else stream
        try:
            return sitecustomize.found(Loader.__name__, data)
        except (OSError, TypeError):
            if data is not stream:
                stream.seek(0)
    return load(stream, Loader)
builtins.compile, yaml.load = compile, loaded
"""


def make() -> None:
    """Make it, and have all processes that are started from now on know where."""
    # Hosts have a /tmp, a /root and a /var/lib of their own.
    folder = Path(tempfile.mkdtemp(prefix="surefoot-compiled-", dir="/var/tmp"))
    os.environ[VARIABLE] = str(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    (folder / "sitecustomize.py").write_text(SITE)
    (folder / "of_ansible.py").write_text(OF_ANSIBLE)
    results = folder / (sys.implementation.cache_tag or "")
    results.mkdir()

    def keep(kind: str, source: bytes, result: object) -> None:
        (results / f"{kind}-{_imp.source_hash(0, source).hex()}").write_bytes(marshal.dumps(result))

    spec = importlib.util.find_spec("ansible")
    assert spec is not None and spec.origin is not None
    ansible = Path(spec.origin).parent
    for path in (path for part in PARTS for path in (ansible / part).rglob("*.py")):
        source = path.read_bytes()
        tree = ast.parse(source)
        keep("code", source, compile(tree, f"ansible/{path.relative_to(ansible)}", "exec", dont_inherit=True))
        if LOOKS_AS_WE_DO:
            keep("imports", source, imports(tree))
    for name, loader in READ:
        source = (ansible / name).read_bytes()
        keep(loader, source, yaml.load(source, Loader=getattr(yaml, loader)))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def imports(tree: ast.Module) -> str:
    """Return a source with the same imports, those that are optional for being inside of something inside of something,
    and the module's metadata: what Ansible's ModuleDepFinder and _get_module_metadata look at.
    """
    lines = []
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Assign)):
            if not isinstance(statement, ast.Assign) or "METADATA" in map(ast.unparse, statement.targets):
                lines.append(ast.unparse(statement))
        elif inner := [ast.unparse(node) for node in _below(statement)]:
            lines.append("if 1: " + "; ".join(inner))
    return "\n".join(lines)


def _below(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        else:
            yield from _below(child)


def remove() -> None:
    """Remove them."""
    shutil.rmtree(os.environ[VARIABLE], ignore_errors=True)


def settings() -> str:
    """Return what sshd is to set for it in sessions on a host."""
    folder = os.environ.get(VARIABLE)
    return f"PYTHONPATH={folder}" if folder else ""


def use_in_labs() -> None:
    """Have the sshd of all hosts of labs set it, and their agents have it; labs themselves know nothing of it."""
    host._SSH_CONFIG = host._SSH_CONFIG.replace("SetEnv SHLVL=2", f"SetEnv SHLVL=2 {settings()}")
    if (folder := os.environ.get(VARIABLE)) and folder not in sys.path:
        sys.path.append(folder)  # of which labs tell their agents
