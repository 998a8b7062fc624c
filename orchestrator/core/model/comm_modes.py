"""The ladder: how ranks may communicate, best first, and what is left when they cannot.

For work that needs collectives: NCCL over InfiniBand, NCCL over sockets (without GPUs: gloo), and
below them what the workload declares: ``local-rounds`` trains every node by itself and averages
over SSH. Divisible work needs no collective: its samples are leased over SSH. Independent ranks
need nothing of each other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.model.plan import PlannedMode
from orchestrator.core.model.workload import Shape


class CommMode(StrEnum):
    """A way to get the job through; the values are what plans, results and people see."""

    INDEPENDENT = "independent"
    LEASES = "leases"
    NCCL_LOCAL = "nccl-local"
    NCCL_IB = "nccl-ib"
    NCCL_SOCKET = "nccl-socket"
    GLOO = "gloo"
    LOCAL_ROUNDS = "local-rounds"


# Collectives between nodes: what a fabric probe can prove, and what a broken fabric takes away.
BETWEEN_NODES = frozenset({CommMode.NCCL_IB, CommMode.NCCL_SOCKET, CommMode.GLOO})
# Nodes that do not need each other: losing one does not end the others' work.
APART = frozenset({CommMode.LEASES, CommMode.LOCAL_ROUNDS})


class Intent(StrEnum):
    """What the plan means to do with a rung."""

    USE = "use"
    NEXT = "next"
    SKIP = "skip"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A rung that did not hold, in which attempt, and how long it took to know.

    ``started``: ranks were already running on it. ``id`` and ``remedy`` are what an error says that
    comes of it when no rung is left.
    """

    rung: CommMode
    reason: str
    seconds: float
    attempt: int = 1
    started: bool = False
    id: str = "OR-FABRIC-001"
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNeeds:
    """What the ladder depends on. ``communicates``: the launcher lets ranks meet. ``lacking``: the
    nodes whose ranks have no GPU.
    """

    shape: Shape
    communicates: bool
    nodes: int
    ib_ports: int
    lacking: tuple[str, ...] = ()
    assumed: bool = False


def fallback_chain(ground: JobNeeds, falls: Sequence[Fallback] = ()) -> tuple[PlannedMode, ...]:
    """Every rung with intent and reason, best first. Exactly one is to be used, or, when all that
    there were have failed, none.
    """
    failed = {fall.rung: fall for fall in falls}
    chosen = False
    rungs: list[PlannedMode] = []
    for rung, usable, why in _usable_modes(ground):
        fall = failed.get(rung)
        if fall is not None:
            intent = Intent.FAILED
        elif not usable:
            intent = Intent.SKIP
        else:
            intent = Intent.NEXT if chosen else Intent.USE
            chosen = True
        reason = fall.reason if fall is not None else why
        rungs.append(PlannedMode(rung=rung.value, intent=intent.value, reason=reason))
    return tuple(rungs)


def mode_in_use(rungs: Sequence[PlannedMode]) -> CommMode | None:
    """The rung to use; None when none is left."""
    return next((CommMode(r.rung) for r in rungs if r.intent == Intent.USE), None)


def _usable_modes(ground: JobNeeds) -> Iterator[tuple[CommMode, bool, str]]:
    """(rung, usable, why), best first."""
    if ground.shape is Shape.DIVISIBLE:
        yield (
            CommMode.LEASES,
            True,
            "samples are independent: leased over SSH, no collective needed",
        )
        return
    if ground.shape is Shape.INDEPENDENT or not ground.communicates:
        yield CommMode.INDEPENDENT, True, "ranks do not communicate"
        return
    yield from _collective_modes(ground)
    if ground.shape is Shape.LOCAL_ROUNDS and ground.nodes > 1:
        yield (
            CommMode.LOCAL_ROUNDS,
            True,
            "each node trains on its own; parameters are averaged over SSH (DiLoCo)",
        )


def _collective_modes(ground: JobNeeds) -> Iterator[tuple[CommMode, bool, str]]:
    if ground.lacking:
        some = len(ground.lacking) < ground.nodes
        who = f" for the ranks of {fold_nodeset(ground.lacking)}" if some else "s"
        yield CommMode.GLOO, True, f"no GPU{who}, so no NCCL"
        return
    if ground.nodes == 1:
        yield CommMode.NCCL_LOCAL, True, "one node: its own links suffice"
        return
    if ground.ib_ports:
        yield CommMode.NCCL_IB, True, f"{ground.ib_ports} InfiniBand ports found"
        yield CommMode.NCCL_SOCKET, True, "if InfiniBand fails"
    elif ground.assumed:
        yield CommMode.NCCL_IB, True, "assumed until probed"
        yield CommMode.NCCL_SOCKET, True, "if InfiniBand fails"
    else:
        yield CommMode.NCCL_IB, False, "no InfiniBand port found"
        yield CommMode.NCCL_SOCKET, True, "NCCL over TCP"
