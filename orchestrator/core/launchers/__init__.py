"""Launchers: from a node's place in the world to the processes its supervisor starts. Pure.

Each has a file with its record; :data:`LAUNCHERS` is the registry.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.launchers.launcher import Launcher, LaunchSpec, Scheduler
from orchestrator.core.launchers.plain import COMMAND, DIRECT, MANUAL
from orchestrator.core.launchers.ray import RAY, joined
from orchestrator.core.launchers.slurm import SLURM
from orchestrator.core.launchers.torchrun import TORCHRUN

__all__ = ["LAUNCHERS", "LaunchSpec", "Launcher", "Scheduler", "choose", "modules", "scheduler"]

LAUNCHERS: Mapping[str, Launcher] = {
    launcher.name: launcher for launcher in (TORCHRUN, DIRECT, MANUAL, COMMAND, RAY, SLURM)
}


def modules(requested: str) -> tuple[str, ...]:
    """What ranks import for the launcher that was asked for; nothing for ``auto``."""
    known = LAUNCHERS.get(requested)
    return known.modules if known else ()


def scheduler(requested: str) -> Scheduler | None:
    """Who gives the nodes to the launcher that was asked for; None for most, and for ``auto``."""
    known = LAUNCHERS.get(requested)
    return known.scheduler if known else None


def choose(
    requested: str,
    *,
    program: tuple[str, ...],
    has_torch: bool | None,
    divisible: bool = False,
    options: tuple[str, ...] = (),
) -> tuple[str, str]:
    """(launcher, why). ``has_torch`` None = not known yet; ``divisible``: its samples are."""
    cluster = joined(options)
    if requested == "ray" and cluster is not None:
        return requested, f"to join the Ray cluster at {cluster}, as --ray-address says"
    if requested != "auto":
        return requested, "asked for with --launcher"
    if program:
        return "command", "the job is a plain command, not a Python script"
    if divisible:
        return "manual", "its samples are independent: workers need not meet"
    if has_torch is False:
        return "direct", "torch is not installed in the ranks' interpreter, so there is no torchrun"
    return "torchrun", "a Python script"
