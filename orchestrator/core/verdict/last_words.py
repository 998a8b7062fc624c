"""What processes say last when they give up: ``OR-NAME-003: why``. Pure.

Of a launcher's own processes its registry knows the ids, of ranks what their workload declares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core import launchers
from orchestrator.core.launchers import LauncherError
from orchestrator.core.run.events import ProcessExited, RankExited

FAILURE_ID = re.compile(r"[A-Z]{2,12}-[A-Z]{2,12}-\d{3}")
LAST_WORDS = re.compile(rf"({FAILURE_ID.pattern}): (.+)", re.DOTALL)
MAX_CAUSE = 500
# What ended the job ended its ranks a moment before its own words came.
SAME_MOMENT_S = 15.0


KNOWN = launchers.launcher_errors()
# How a scheduler says that it ended the job, and the process that asked for it.
ENDED = {scheduler.ended: scheduler.label for scheduler in launchers.SCHEDULERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnError:
    """A process's own account of why it gave up."""

    id: str
    cause: str
    meaning: LauncherError


def own_error(
    ending: RankExited | ProcessExited, declared: Mapping[str, str] | None = None
) -> OwnError | None:
    """What the process itself gave as the reason. ``declared``: what to do about the failures that
    ranks may name, by id.
    """
    if isinstance(ending, ProcessExited):
        return _known_error(ending.last_line, KNOWN)
    return declared_failure(ending.last_line, declared or {})


def declared_failure(line: str, declared: Mapping[str, str]) -> OwnError | None:
    """The failure that a program's last line names, if its workload declares it."""
    return _known_error(line, {id: LauncherError(remedy=do) for id, do in declared.items()})


def _known_error(line: str, known: Mapping[str, LauncherError]) -> OwnError | None:
    told = LAST_WORDS.fullmatch(line)
    meaning = known.get(told[1]) if told else None
    if told is None or meaning is None:
        return None
    return OwnError(id=told[1], cause=told[2][:MAX_CAUSE], meaning=meaning)


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
