"""Drills: a harmless fault, what is promised under it, and whether that was kept. Pure.

A drill's promises are either times with a limit in seconds, or facts without one. What was not seen
to hold is broken, never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.core.base.outcome import Signalled
from orchestrator.core.model.plan import Budgets
from orchestrator.core.run.events import Event, RankExited
from orchestrator.core.run.state import LEASE, RunState
from orchestrator.core.verdict.result import Result

# Ranks that only wait for their fault end by themselves after a minute, whatever goes wrong.
LONG, SHORT = 600, 40
KILL = 9
SUPERVISOR_LOST = "OR-AGENT-SUPERVISOR"

NAMED, CLEAN, LINKED, LOGS = "named", "clean", "linked", "logs"
TAKEN_OVER, ENDED, STOPPED, NOTHING_LEFT = "taken-over", "ended", "stopped", "nothing-left"


class PromiseKept(StrEnum):
    """What is to be said of a promise, or of a whole drill."""

    KEPT = "kept"
    BROKEN = "BROKEN"
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """``text`` says what holds; with ``limit_s`` also within how many seconds after the fault."""

    name: str
    text: str
    limit_s: float | None = None

    @property
    def sentence(self) -> str:
        return self.text if self.limit_s is None else f"{self.text} within {self.limit_s:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A fault and what is promised under it. ``here``: it is on this machine, not on a node.

    ``lines`` is how many each rank of its run writes, about ten in a second.
    """

    name: str
    does: str
    promises: tuple[Promise, ...]
    budgets: Budgets
    lines: int = LONG
    here: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillFinding:
    """What was seen of one promise: after how many ``seconds``, or what is wrong."""

    seconds: float | None = None
    wrong: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A promise and what became of it. ``detail`` says why it is not kept."""

    promise: Promise
    verdict: PromiseKept
    seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillOutcome:
    """One drill on ``node``; ``folder`` is what was kept of a run that broke a promise.

    ``reason`` says why it was not run; ``seconds`` is how long all of it took.
    """

    drill: Drill
    node: str
    judged: tuple[Judged, ...] = ()
    reason: str = ""
    run_id: str = ""
    folder: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> PromiseKept:
        if not self.judged:
            return PromiseKept.NOT_RUN
        kept = all(judged.verdict is PromiseKept.KEPT for judged in self.judged)
        return PromiseKept.KEPT if kept else PromiseKept.BROKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillLimits:
    """Seconds: what the drills' own runs are given, which some promises depend on."""

    hang_s: float = 5.0
    lease_s: float = 5.0
    grace_s: float = 3.0


def list_drills(limits: DrillLimits) -> tuple[Drill, ...]:
    """Every drill, in the order in which they are run."""
    # Ranks whose drill itself was killed end soon; and a lease must outlast what is not about it.
    usual = Budgets(run_s=90.0, grace_s=limits.grace_s, lease_s=20.0, hang_s=None)
    found = (*_of_ranks(limits, usual), *_of_links(usual), *_of_coordinators(limits, usual))
    left = Promise(name=NOTHING_LEFT, text="no process, lock or folder left on any node")
    return tuple(replace(drill, promises=(*drill.promises, left)) for drill in found)


def _of_ranks(limits: DrillLimits, usual: Budgets) -> tuple[Drill, ...]:
    named = Promise(name=NAMED, text="node, rank and signal named", limit_s=5.0)
    clean = Promise(name=CLEAN, text="every node verified clean", limit_s=30.0)
    hang = Promise(name=NAMED, text="hang noticed, rank named", limit_s=limits.hang_s + 10.0)
    return (
        Drill(
            name="kill-rank",
            does="sends SIGKILL to one rank",
            promises=(named, clean),
            budgets=usual,
        ),
        Drill(
            name="freeze-rank",
            does="sends SIGSTOP to one rank",
            promises=(hang,),
            budgets=replace(usual, hang_s=limits.hang_s, hang_asked=True),
        ),
        Drill(
            name="kill-supervisor",
            does="sends SIGKILL to the run's supervisor",
            promises=(replace(named, text="node and supervisor named"), clean),
            budgets=usual,
        ),
    )


def _of_links(usual: Budgets) -> tuple[Drill, ...]:
    linked = Promise(name=LINKED, text="the link is back", limit_s=usual.silence_s)
    logs = Promise(name=LOGS, text="the run continues, no log byte lost or duplicated")
    return (
        Drill(
            name="stop-agent",
            does="sends SIGKILL to the agent, the run's process in the SSH session",
            promises=(linked, logs),
            lines=SHORT,
            budgets=usual,
        ),
        Drill(
            name="drop-link",
            does="breaks the run's SSH connection from here, without a goodbye",
            promises=(linked, logs),
            lines=SHORT,
            budgets=usual,
        ),
    )


def _of_coordinators(limits: DrillLimits, usual: Budgets) -> tuple[Drill, ...]:
    over = Promise(name=TAKEN_OVER, text="every rank followed again", limit_s=10.0)
    logs = Promise(name=LOGS, text="the same ranks continue, no log byte lost or duplicated")
    ended_s, stopped_s = limits.lease_s + 10.0, limits.grace_s + 10.0
    ended = Promise(name=ENDED, text="every rank ended by its node", limit_s=ended_s)
    stopped = Promise(name=STOPPED, text="all stopped and verified clean", limit_s=stopped_s)
    return (
        Drill(
            name="kill-coordinator",
            does="sends SIGKILL to the run's coordinator; another one takes over",
            promises=(over, logs),
            lines=SHORT,
            budgets=usual,
            here=True,
        ),
        Drill(
            name="lease",
            does="sends SIGKILL to the run's coordinator; none takes over",
            promises=(ended,),
            budgets=replace(usual, lease_s=limits.lease_s),
            here=True,
        ),
        Drill(
            name="interrupt",
            does="asks for the run's end, as Ctrl-C does",
            promises=(stopped,),
            budgets=usual,
            here=True,
        ),
    )


def assign_targets(chosen: Sequence[Drill], nodes: Sequence[str]) -> list[tuple[Drill, str]]:
    """Each drill with the node that its fault is on, in turn; empty where it is on no node."""
    pairs: list[tuple[Drill, str]] = []
    turn = len(nodes) - 1  # the head last: what is true of it alone must not decide the first drill
    for drill in chosen:
        if drill.here:
            pairs.append((drill, ""))
        else:
            pairs.append((drill, nodes[turn % len(nodes)]))
            turn -= 1
    return pairs


# ---- judging -----------------------------------------------------------------------------------


def judge_promise(promise: Promise, finding: DrillFinding | None) -> Judged:
    """A time beyond its limit, a missing one, and anything wrong break the promise."""
    if finding is None:
        return Judged(promise=promise, verdict=PromiseKept.BROKEN, detail="not seen")
    if finding.wrong:
        return Judged(
            promise=promise,
            verdict=PromiseKept.BROKEN,
            seconds=finding.seconds,
            detail=finding.wrong,
        )
    if promise.limit_s is None:
        return Judged(promise=promise, verdict=PromiseKept.KEPT, seconds=finding.seconds)
    if finding.seconds is None:
        return Judged(promise=promise, verdict=PromiseKept.BROKEN, detail="not seen")
    kept = finding.seconds <= promise.limit_s
    detail = "" if kept else "too late"
    verdict = PromiseKept.KEPT if kept else PromiseKept.BROKEN
    return Judged(promise=promise, verdict=verdict, seconds=finding.seconds, detail=detail)


def judge_all(
    drill: Drill, findings: Mapping[str, DrillFinding], why: str = ""
) -> tuple[Judged, ...]:
    """Every promise of ``drill``; of what was not seen, ``why`` not."""
    missing = DrillFinding(wrong=why) if why else None
    return tuple(judge_promise(p, findings.get(p.name, missing)) for p in drill.promises)


# ---- reading what happened ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """``event`` led to ``state`` at ``at`` (coordinator's monotonic clock, seconds)."""

    at: float
    event: Event
    state: RunState = field(repr=False)


def first_moment(moments: Iterable[Moment], holds: Callable[[RunState], bool]) -> float | None:
    """When ``holds`` was first true."""
    return next((moment.at for moment in moments if holds(moment.state)), None)


def time_until(
    moments: Iterable[Moment], since: float, holds: Callable[[RunState], bool]
) -> DrillFinding:
    """How long after ``since`` it was that ``holds`` was first true."""
    at = first_moment(moments, holds)
    return (
        DrillFinding(wrong="it never was")
        if at is None
        else DrillFinding(seconds=max(0.0, at - since))
    )


def ranks_run(state: RunState) -> bool:
    """Every planned rank has started."""
    shares = state.plan.nodes if state.plan else ()
    return bool(shares) and all(set(s.ranks) <= set(state.nodes[s.name].ranks) for s in shares)


def names_killed_rank(state: RunState, node: str, rank: int) -> bool:
    """The first failure is that very rank's, by SIGKILL."""
    cause = next(iter(state.failures), None)
    if not isinstance(cause, RankExited):
        return False
    return (cause.node, cause.rank, cause.outcome) == (node, rank, Signalled(KILL))


def names_hanging_rank(state: RunState, node: str, rank: int) -> bool:
    hang = state.hang
    return hang is not None and (hang.node, hang.rank) == (node, rank)


def names_lost_supervisor(state: RunState, node: str) -> bool:
    return any(at == node and problem.id == SUPERVISOR_LOST for at, _, problem in state.problems)


def verified_clean(state: RunState) -> bool:
    """Every planned node said that nothing of the run is left."""
    found = [node.swept for _, node in state.planned()]
    return bool(found) and all(swept is not None and swept.clean for swept in found)


def ended_by_lease(state: RunState) -> str:
    """What speaks against it that every node ended its ranks for want of a coordinator."""
    other = [n for n, s in state.planned() if s.halting is None or s.halting.why != LEASE]
    return f"not by its lease: {', '.join(other)}" if other else ""


def wrong_name(result: Result, node: str, rank: int | None) -> str:
    """What speaks against it that the run's verdict names ``node`` and ``rank``."""
    cause = result.failure
    if cause is None:
        return f"the run {result.status.value} without a failure"
    if (cause.node, cause.rank) != (node, rank):
        return f"the verdict names another cause: {cause.cause}"
    return ""


def wrong_log(content: bytes, rank: int, lines: int) -> str:
    """What is wrong with a log that should hold each of the rank's numbered lines once."""
    due = [b"line %d of rank %d" % (line, rank) for line in range(lines)]
    *found, rest = content.split(b"\n")
    if found == due and not rest:
        return ""
    at = next((n for n, pair in enumerate(zip(found, due, strict=False)) if pair[0] != pair[1]), -1)
    at = min(len(found), len(due)) if at < 0 else at
    return f"rank {rank}: {len(found)} of {lines} lines, wrong from line {at} on"
