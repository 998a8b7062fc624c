"""What a launcher's own processes say when they give up: ``OR-NAME-003: why``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core import launchers
from orchestrator.core.launchers import LauncherError
from orchestrator.core.run.events import ProcessExited, RankExited

LAST_WORDS = re.compile(r"(OR-[A-Z]{2,12}-\d{3}): (.{1,500})", re.DOTALL)
# What ended the job ended its ranks a moment before its own words came.
SAME_MOMENT_S = 15.0


KNOWN = launchers.launcher_errors()
# How a scheduler says that it ended the job, and the process that asked for it.
ENDED = {scheduler.ended: scheduler.label for scheduler in launchers.SCHEDULERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnError:
    """A launcher's own account of why it gave up."""

    id: str
    cause: str
    meaning: LauncherError


def own_error(ending: RankExited | ProcessExited) -> OwnError | None:
    """What the process itself gave as the reason; ranks are not asked."""
    told = LAST_WORDS.fullmatch(ending.last_line) if isinstance(ending, ProcessExited) else None
    meaning = KNOWN.get(told[1]) if told else None
    return OwnError(id=told[1], cause=told[2], meaning=meaning) if told and meaning else None


def ended_from_outside(
    endings: Sequence[RankExited | ProcessExited], first: RankExited | ProcessExited
) -> ProcessExited | None:
    """The ending that says that the scheduler ended the job, if that is why ``first`` ended.

    The node of ``first`` must say so, too: elsewhere tasks are ended because the run gives its job
    back. The submission knows best why.
    """
    told = [
        ending
        for ending in endings
        if isinstance(ending, ProcessExited)
        and abs(ending.at - first.at) <= SAME_MOMENT_S
        and (error := own_error(ending)) is not None
        and error.id in ENDED
    ]
    if not any(ending.node == first.node for ending in told):
        return None
    submissions = set(ENDED.values())
    return next((ending for ending in told if ending.label in submissions), told[0])
