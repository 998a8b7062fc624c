"""Ranks that make no progress: the suspicion, the look at their nodes, and what was found. Data.

``core.run.hang`` decides what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire


@wire("Collective")
@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """How far one rank came in one process group, by the flight recorder or by NCCL itself.

    ``entered`` and ``completed`` number the group's collectives from 1; ``operation`` is the one
    entered last, such as ``all_reduce``. ``members`` are ranks of the job.
    """

    group: str
    entered: int
    completed: int
    operation: str = ""
    members: tuple[int, ...] = ()


@wire("RankEvidence")
@dataclass(frozen=True, slots=True, kw_only=True)
class RankEvidence:
    """One rank. ``state`` is the kernel's letter (R S D T Z), "" = there is no such process.

    ``waits_in``: the system call or kernel function that its main thread waits in. ``cpu``: share
    of one CPU that it used just now. ``quiet_s``: seconds since it last wrote anything, by its
    node's clock. ``stack``: Python frames of its main thread, innermost first. ``gpu_busy``:
    utilisation of its GPU in percent.
    """

    rank: int
    pid: int
    state: str
    waits_in: str = ""
    cpu: float = 0.0
    quiet_s: float | None = None
    stack: tuple[str, ...] = ()
    collectives: tuple[Collective, ...] = ()
    gpu_busy: int | None = None
    last_line: str = ""


@wire("Inspection")
@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One node's answer. ``reachable`` False: its link is broken, which proves nothing.

    ``problem``: why a node that can be reached did not tell.
    """

    ranks: tuple[RankEvidence, ...] = ()
    reachable: bool = True
    problem: str = ""


# ---- events and the action ---------------------------------------------------------------------


@wire("Stalled")
@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Ranks were silent for ``silent_s``, longer than ``limit_s`` allows: a suspicion, no verdict.

    ``ranks`` are silent though others are not; empty = every rank is. ``at`` is the coordinator's
    wall clock in seconds.
    """

    silent_s: float
    limit_s: float
    at: float
    ranks: tuple[int, ...] = ()


@wire("Inspected")
@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """All ranks of a node were looked at, or could not be. Answers suspicion number ``stall``."""

    node: str
    stall: int
    inspection: Inspection
