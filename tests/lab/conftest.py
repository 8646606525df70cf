# SPDX-License-Identifier: Apache-2.0
"""Labs for tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from surefoot.drills.lab import Lab


@pytest.fixture(scope="module")
def lab(laboratory: None) -> Iterator[Lab]:
    """A lab for the tests of a file, with no hosts in it yet."""
    with Lab() as one:
        yield one
