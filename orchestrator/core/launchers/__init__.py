"""Launchers: from a node's place in the world to the processes its supervisor starts. Pure.

Each is a function ``(Share) -> processes``; :data:`LAUNCHERS` is the registry.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.launchers.base import Launcher, Share
from orchestrator.core.launchers.plain import command, direct, manual
from orchestrator.core.launchers.torchrun import torchrun

__all__ = ["BINDS_RANKS", "LAUNCHERS", "NEEDS_RENDEZVOUS", "Launcher", "Share", "choose"]

LAUNCHERS: Mapping[str, Launcher] = {
    "torchrun": torchrun,
    "direct": direct,
    "manual": manual,
    "command": command,
}

NEEDS_RENDEZVOUS = frozenset({"torchrun", "direct"})
# Their ranks start in our shim, which binds them to processors.
BINDS_RANKS = frozenset({"torchrun"})


def choose(
    requested: str, *, program: tuple[str, ...], has_torch: bool | None, divisible: bool = False
) -> tuple[str, str]:
    """(launcher, why). ``has_torch`` None = not known yet; ``divisible``: its samples are."""
    if requested != "auto":
        return requested, "asked for with --launcher"
    if program:
        return "command", "the job is a plain command, not a Python script"
    if divisible:
        return "manual", "its samples are independent: workers need not meet"
    if has_torch is False:
        return "direct", "torch is not installed in the ranks' interpreter, so there is no torchrun"
    return "torchrun", "a Python script"
