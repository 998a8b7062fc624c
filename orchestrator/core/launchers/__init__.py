"""Launchers: from a node's place in the world to the processes its supervisor starts. Pure.

Each is a function ``(Share) -> processes``; :data:`LAUNCHERS` is the registry.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.launchers.launcher import Launcher, LaunchSpec
from orchestrator.core.launchers.plain import command, direct, manual
from orchestrator.core.launchers.ray import joined, ray
from orchestrator.core.launchers.slurm import slurm
from orchestrator.core.launchers.torchrun import torchrun

__all__ = [
    "BINDS_RANKS",
    "LAUNCHERS",
    "MODULES",
    "NEEDS_RENDEZVOUS",
    "NEEDS_WORLD",
    "NO_RENDEZVOUS",
    "LaunchSpec",
    "Launcher",
    "choose",
]

LAUNCHERS: Mapping[str, Launcher] = {
    "torchrun": torchrun,
    "direct": direct,
    "manual": manual,
    "command": command,
    "ray": ray,
    "slurm": slurm,
}

# Launchers whose ranks meet, unless the rung keeps their nodes apart.
NEEDS_RENDEZVOUS = frozenset({"torchrun", "direct", "ray", "slurm"})
# Its ranks know of no others, not even on their own node. What a plain command does is not known.
NO_RENDEZVOUS = frozenset({"manual"})
# Those that cannot start ranks without making a world of them.
NEEDS_WORLD = frozenset({"torchrun", "direct", "slurm"})
# What the ranks' interpreter must be able to import for a launcher, whatever the workload needs.
MODULES: Mapping[str, tuple[str, ...]] = {"ray": ("ray",)}
# Their ranks start in our shim, which binds them to processors.
BINDS_RANKS = frozenset({"torchrun", "ray"})


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
