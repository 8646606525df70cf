# SPDX-License-Identifier: Apache-2.0
"""What tests keep of Ansible's own files says the same as the files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ansible.executor.module_common import ModuleDepFinder

import ansible
from tests.support import compiled

ANSIBLE = Path(ansible.__file__).parent
pytestmark = pytest.mark.skipif(not compiled.LOOKS_AS_WE_DO, reason="this Ansible looks for imports by itself")


@pytest.mark.parametrize("part", compiled.PARTS)
def test_a_source_that_is_left_with_its_imports_has_the_same(part: str) -> None:
    several = 0
    for path in (ANSIBLE / part).rglob("*.py"):
        tree = ast.parse(path.read_bytes())
        name = ".".join(("ansible", *path.relative_to(ANSIBLE).with_suffix("").parts))
        package = path.name == "__init__.py"
        left = ModuleDepFinder(name, ast.parse(compiled.imports(tree)), package)
        whole = ModuleDepFinder(name, tree, package)
        assert (left.submodules, left.optional_imports) == (whole.submodules, whole.optional_imports), path
        several += len(whole.submodules) > 1
    assert several > 10


def test_an_optional_import_stays_optional_and_metadata_stay() -> None:
    source = """
from __future__ import annotations
from ansible.module_utils import one
METADATA = 'schema_version: 1'
OTHER = 2
try:
    import ansible.module_utils.two
except ImportError:
    if True:
        from ansible.module_utils.three import a as b, c
class A:
    def f(self):
        with x:
            import ansible.module_utils.four; return 4
match 1:
    case 1: import ansible.module_utils.five
"""
    left = ast.parse(compiled.imports(ast.parse(source)))
    found, whole = ModuleDepFinder("m", left), ModuleDepFinder("m", ast.parse(source))
    assert found.submodules == whole.submodules and found.optional_imports == whole.optional_imports
    assert len(found.optional_imports) == 5
    assert [ast.unparse(node) for node in left.body if isinstance(node, ast.Assign)] == [
        "METADATA = 'schema_version: 1'"
    ]
