# SPDX-License-Identifier: Apache-2.0
"""Seeded protocol bugs, to show that the simulation would find them: `python -m tests.simulation.mutants`.

Each is the product with one rule left out, put in by patching from here: the product has no switch for it. The
simulation is as good as the mutants that it catches; one that it does not catch is a check that is missing.
"""

from tests.simulation.mutants import decisions, fences, journals, leases, surroundings
from tests.simulation.mutants.registry import MUTANTS

__all__ = ["MUTANTS", "decisions", "fences", "journals", "leases", "surroundings"]
