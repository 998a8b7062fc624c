"""Launchers: from a node's place in the world to the processes its supervisor starts. Pure.

Each has a file with its record; :data:`LAUNCHERS` is the registry, and all that is particular of a
launcher is asked of its record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.core.launchers.kubernetes import KUBERNETES
from orchestrator.core.launchers.launcher import Launcher, LaunchSpec, set_by_launcher
from orchestrator.core.launchers.launcher_error import LauncherError
from orchestrator.core.launchers.launcher_option import LauncherOption
from orchestrator.core.launchers.plain import COMMAND, DIRECT, MANUAL
from orchestrator.core.launchers.ray import RAY
from orchestrator.core.launchers.scheduler import Scheduler
from orchestrator.core.launchers.slurm import SLURM
from orchestrator.core.launchers.torchrun import TORCHRUN
from orchestrator.core.model.workload import Shape

__all__ = [
    "LAUNCHERS",
    "SCHEDULERS",
    "LaunchSpec",
    "Launcher",
    "LauncherError",
    "LauncherOption",
    "Scheduler",
    "choose_launcher",
    "find_scheduler",
    "known_launcher",
    "launcher_errors",
    "launcher_options",
    "needed_modules",
    "set_by_launcher",
]

LAUNCHERS: Mapping[str, Launcher] = {
    launcher.name: launcher
    for launcher in (TORCHRUN, DIRECT, MANUAL, COMMAND, RAY, SLURM, KUBERNETES)
}
SCHEDULERS: tuple[Scheduler, ...] = tuple(
    launcher.scheduler for launcher in LAUNCHERS.values() if launcher.scheduler is not None
)

# Variables that stand for options of torchrun's, or change how its agent works.
READ_BY_TORCHRUN = ("PET_", "TORCHELASTIC_", "TORCH_ELASTIC_")


def known_launcher(requested: str) -> Launcher | None:
    """The launcher that was asked for; None for ``auto``."""
    return LAUNCHERS.get(requested)


def needed_modules(requested: str) -> tuple[str, ...]:
    """What ranks import for the launcher that was asked for; nothing for ``auto``."""
    known = known_launcher(requested)
    return known.modules if known else ()


def find_scheduler(requested: str) -> Scheduler | None:
    """Who gives the nodes to the launcher that was asked for; None for most, and for ``auto``."""
    known = known_launcher(requested)
    return known.scheduler if known else None


def launcher_options() -> Iterator[tuple[Launcher, LauncherOption]]:
    """Every option of the command line that is for one launcher alone, with the launcher."""
    for launcher in LAUNCHERS.values():
        for option in launcher.options:
            yield launcher, option


def launcher_errors() -> dict[str, LauncherError]:
    """What the errors of launchers mean, by their ids."""
    return {id: error for each in LAUNCHERS.values() for id, error in each.errors.items()}


def choose_launcher(
    requested: str,
    *,
    for_scripts: str = TORCHRUN.name,
    program: tuple[str, ...],
    has_torch: bool | None,
    shape: Shape = Shape.RIGID,
    options: tuple[str, ...] = (),
    variables: Iterable[str] = (),
    own_worlds: bool = False,
) -> tuple[str, str]:
    """(launcher, why). ``for_scripts``: what ``auto`` takes for them. ``has_torch`` None = not
    known yet. ``variables``: names of those that the user sets. ``own_worlds``: each node's ranks
    meet among themselves alone.
    """
    known = known_launcher(requested)
    if known is not None and not known.makes_nodes:
        return requested, known.why(options) or "asked for with --launcher"
    if program:
        return "command", "the job is a plain command, not a Python script"
    if shape is Shape.DIVISIBLE:
        return "manual", "its samples are independent: workers need not meet"
    if shape is Shape.INDEPENDENT:
        return "manual", "its ranks do not communicate"
    if has_torch is False:
        return "direct", "torch is not installed in the ranks' interpreter, so there is no torchrun"
    if for_scripts == TORCHRUN.name:
        return "torchrun", "a Python script"
    if own_worlds:
        return "torchrun", "each node's ranks are a world of their own, whose port torchrun chooses"
    asked = min((name for name in variables if name.startswith(READ_BY_TORCHRUN)), default="")
    if asked:
        return "torchrun", f"{asked} is set, which torchrun reads"
    why = "a Python script: ranks get the variables that torchrun sets, and start without it"
    return for_scripts, why
