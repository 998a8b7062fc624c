"""All mutants, spread over the whole system: no part may be left to luck."""

from __future__ import annotations

from .in_coordinator import IN_COORDINATOR
from .in_core import IN_CORE
from .in_rounds import IN_ROUNDS
from .mutant import Mutant
from .on_nodes import ON_NODES

MUTANTS: tuple[Mutant, ...] = (*IN_CORE, *IN_COORDINATOR, *IN_ROUNDS, *ON_NODES)
