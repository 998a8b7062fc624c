"""What facts derive, with what users and files set laid over it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.base.command import Text
from orchestrator.core.model.plan import Variable
from orchestrator.core.tuning.variable_sources import FILE, USER, reference_url

NO_EFFECT = "it has no effect: the launcher gives each rank its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """``left`` is not set by us: on purpose, or because a file on the node sets it."""

    env: tuple[Variable, ...]
    left: tuple[Variable, ...]


def merge_variables(
    derived: Iterable[Variable],
    files: Mapping[str, str],
    settings: Sequence[tuple[str, Mapping[str, Text]]],
) -> Tuned:
    """``files`` is what NCCL reads on the node; ``settings`` are (source, variables) of the user,
    the stronger one last. What was replaced stays visible.
    """
    table = {variable.name: variable for variable in derived}
    for name, text in files.items():
        reason = f"set in nccl.conf on the node{_instead_of(table.get(name), text)}"
        table[name] = _set_variable(name, text, FILE, reason)
    for source, variables in settings:
        for name, value in variables.items():
            reason = f"set in {source}{_instead_of(table.get(name), value)}"
            table[name] = _set_variable(name, value, USER, reason)
    ours = [v for v in table.values() if v.origin == USER or (v.value and v.origin != FILE)]
    return Tuned(env=tuple(ours), left=tuple(v for v in table.values() if v not in ours))


def without_effect(tuned: Tuned, launched: Collection[str]) -> Tuned:
    """``tuned`` without what users set of the names that the launcher sets; that stays visible."""
    idle = [v for v in tuned.env if v.origin == USER and v.name in launched]
    left = (replace(v, value="", reason=f"{v.value}, {v.reason}: {NO_EFFECT}") for v in idle)
    return Tuned(env=tuple(v for v in tuned.env if v not in idle), left=(*tuned.left, *left))


def _set_variable(name: str, value: Text, origin: str, reason: str) -> Variable:
    return Variable(
        name=name, value=value, origin=origin, reason=reason, reference=reference_url(name)
    )


def _instead_of(replaced: Variable | None, value: Text) -> str:
    if replaced is None or replaced.value == value:
        return ""
    if not replaced.value:
        return f" (orchestrate would have left it alone: {replaced.reason})"
    return f" (orchestrate would have set {replaced.value}: {replaced.reason})"
