# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a lab."""

from __future__ import annotations

from surefoot.core.errors import Code
from surefoot.drills.errors import DrillError


class LabError(DrillError):
    """The lab can't be set up here, or a host of it did not do what it was told."""

    default_code = Code.LAB
