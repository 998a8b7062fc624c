"""The ladder: how ranks may communicate, best first, and what is left when they cannot.

For work that needs collectives: NCCL over InfiniBand, NCCL over sockets (without GPUs: gloo), and
below them what the workload declares: ``local-rounds`` trains every node by itself and averages
over SSH. Divisible work needs no collective: its samples are leased over SSH. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.model.plan import PlannedRung
from orchestrator.core.model.workload import Shape


class Rung(StrEnum):
    """A way to get the job through; the values are what plans, results and people see."""

    INDEPENDENT = "independent"
    LEASES = "leases"
    NCCL_LOCAL = "nccl-local"
    NCCL_IB = "nccl-ib"
    NCCL_SOCKET = "nccl-socket"
    GLOO = "gloo"
    LOCAL_ROUNDS = "local-rounds"


# Collectives between nodes: what a fabric probe can prove, and what a broken fabric takes away.
BETWEEN_NODES = frozenset({Rung.NCCL_IB, Rung.NCCL_SOCKET, Rung.GLOO})
# Nodes that do not need each other: losing one does not end the others' work.
APART = frozenset({Rung.LEASES, Rung.LOCAL_ROUNDS})


class Intent(StrEnum):
    """What the plan means to do with a rung."""

    USE = "use"
    NEXT = "next"
    SKIP = "skip"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """A rung that did not hold, in which attempt, and how long it took to know.

    ``started``: ranks were already running on it. ``id`` and ``remedy`` are what an error says that
    comes of it when no rung is left.
    """

    rung: Rung
    reason: str
    seconds: float
    attempt: int = 1
    started: bool = False
    id: str = "OR-FABRIC-001"
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the ladder depends on. ``communicates``: the launcher lets ranks meet."""

    shape: Shape
    communicates: bool
    nodes: int
    gpus_everywhere: bool
    ib_ports: int
    assumed: bool = False


def ladder(ground: Ground, falls: Sequence[Fall] = ()) -> tuple[PlannedRung, ...]:
    """Every rung with intent and reason, best first. Exactly one is to be used, or, when all that
    there were have failed, none.
    """
    failed = {fall.rung: fall for fall in falls}
    chosen = False
    rungs: list[PlannedRung] = []
    for rung, usable, why in _rungs(ground):
        fall = failed.get(rung)
        if fall is not None:
            intent = Intent.FAILED
        elif not usable:
            intent = Intent.SKIP
        else:
            intent = Intent.NEXT if chosen else Intent.USE
            chosen = True
        reason = fall.reason if fall is not None else why
        rungs.append(PlannedRung(rung=rung.value, intent=intent.value, reason=reason))
    return tuple(rungs)


def used(rungs: Sequence[PlannedRung]) -> Rung | None:
    """The rung to use; None when none is left."""
    return next((Rung(r.rung) for r in rungs if r.intent == Intent.USE), None)


def _rungs(ground: Ground) -> Iterator[tuple[Rung, bool, str]]:
    """(rung, usable, why), best first."""
    if ground.shape is Shape.DIVISIBLE:
        yield Rung.LEASES, True, "samples are independent: leased over SSH, no collective needed"
        return
    if not ground.communicates:
        yield Rung.INDEPENDENT, True, "ranks do not communicate"
        return
    yield from _collectives(ground)
    if ground.shape is Shape.LOCAL_ROUNDS and ground.nodes > 1:
        yield (
            Rung.LOCAL_ROUNDS,
            True,
            "every node by itself; what they learn is put together over SSH",
        )


def _collectives(ground: Ground) -> Iterator[tuple[Rung, bool, str]]:
    if not ground.gpus_everywhere:
        yield Rung.GLOO, True, "no GPUs, so no NCCL"
        return
    if ground.nodes == 1:
        yield Rung.NCCL_LOCAL, True, "one node: its own links suffice"
        return
    if ground.ib_ports:
        yield Rung.NCCL_IB, True, f"{ground.ib_ports} InfiniBand ports found"
        yield Rung.NCCL_SOCKET, True, "if InfiniBand fails"
    elif ground.assumed:
        yield Rung.NCCL_IB, True, "assumed until probed"
        yield Rung.NCCL_SOCKET, True, "if InfiniBand fails"
    else:
        yield Rung.NCCL_IB, False, "no InfiniBand port found"
        yield Rung.NCCL_SOCKET, True, "NCCL over TCP"
