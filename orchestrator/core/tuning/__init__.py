"""The environment of a node's ranks, derived from facts: every variable with the rule that set it.

Nothing is set without a reason; what is left alone has one, too. A user's own setting always wins,
and is warned about if it is a known bad habit.
"""

from __future__ import annotations

from orchestrator.core.tuning.merging import Tuned, merge_variables, without_effect
from orchestrator.core.tuning.risky_settings import habit_warnings
from orchestrator.core.tuning.rules import Situation, derive_variables, visible_devices
from orchestrator.core.tuning.variable_sources import FACTS, FILE, LAUNCHER, USER, derived_variable

__all__ = [
    "FACTS",
    "FILE",
    "LAUNCHER",
    "USER",
    "Situation",
    "Tuned",
    "derive_variables",
    "derived_variable",
    "habit_warnings",
    "merge_variables",
    "visible_devices",
    "without_effect",
]
