"""The environment of a node's ranks, derived from facts: every variable with the rule that set it.

Nothing is set without a reason; what is left alone has one, too. A user's own setting always wins,
and is warned about if it is a known bad habit.
"""

from __future__ import annotations

from orchestrator.core.tuning.merging import Tuned, merge
from orchestrator.core.tuning.risky_settings import warnings
from orchestrator.core.tuning.rules import Situation, derive, visible_devices
from orchestrator.core.tuning.variable_sources import FACTS, FILE, LAUNCHER, USER, derived

__all__ = [
    "FACTS",
    "FILE",
    "LAUNCHER",
    "USER",
    "Situation",
    "Tuned",
    "derive",
    "derived",
    "merge",
    "visible_devices",
    "warnings",
]
