"""What a launcher's own processes say when they give up: ``OR-SLURM-003: why``. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.run.events import ProcessExited, RankExited

LAST_WORDS = re.compile(r"(OR-[A-Z]{2,12}-\d{3}): (.{1,500})", re.DOTALL)
ENDED_BY_SLURM = "OR-SLURM-005"
SUBMISSION = "slurm"  # the label of the process that asked for the job
# What ended the job ended its ranks a moment before its own words came.
SAME_MOMENT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherError:
    """What an id means to the user. ``code`` is the exit code of a run that failed of it."""

    remedy: str
    code: ExitCode = ExitCode.RUN_FAILED


WORDS: Mapping[str, LauncherError] = {
    "OR-SLURM-001": LauncherError(
        remedy="install Slurm's client commands there, or choose --launcher torchrun"
    ),
    "OR-SLURM-002": LauncherError(
        remedy="correct --slurm-option; sinfo on the node shows partitions"
    ),
    "OR-SLURM-003": LauncherError(
        remedy="--wait SECONDS lets the job wait longer; squeue on the node shows for what",
        code=ExitCode.BUSY,
    ),
    "OR-SLURM-004": LauncherError(
        remedy="look at slurmd's log on those nodes, or leave them out with --nodes"
    ),
    ENDED_BY_SLURM: LauncherError(
        remedy="ask for more time with --timeout, then orchestrate resume RUN"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnError:
    """A launcher's own account of why it gave up."""

    id: str
    cause: str
    word: LauncherError


def own_error(ending: RankExited | ProcessExited) -> OwnError | None:
    """What the process itself gave as the reason; ranks are not asked."""
    told = LAST_WORDS.fullmatch(ending.last_line) if isinstance(ending, ProcessExited) else None
    word = WORDS.get(told[1]) if told else None
    return OwnError(id=told[1], cause=told[2], word=word) if told and word else None


def ended_from_outside(
    endings: Sequence[RankExited | ProcessExited], first: RankExited | ProcessExited
) -> ProcessExited | None:
    """The ending that says that Slurm ended the job, if that is why ``first`` ended.

    The node of ``first`` must say so, too: elsewhere tasks are ended because the run gives its job
    back. The submission knows best why.
    """
    told = [
        ending
        for ending in endings
        if isinstance(ending, ProcessExited)
        and abs(ending.at - first.at) <= SAME_MOMENT_S
        and (error := own_error(ending)) is not None
        and error.id == ENDED_BY_SLURM
    ]
    if not any(ending.node == first.node for ending in told):
        return None
    return next((ending for ending in told if ending.label == SUBMISSION), told[0])
