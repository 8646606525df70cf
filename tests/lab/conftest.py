# SPDX-License-Identifier: Apache-2.0
"""Labs for tests; where there can be none, one loud line says what was not tested and how to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from surefoot.drills.lab import Lab, missing


@pytest.fixture(scope="session")
def laboratory() -> None:
    """What a test asks for that makes its own lab."""
    if reason := missing():
        warnings.warn(f"the lab and all drills are NOT tested: {reason}", stacklevel=1)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def lab(laboratory: None) -> Iterator[Lab]:
    """A lab for the tests of a file, with no hosts in it yet."""
    with Lab() as one:
        yield one
