"""Why a run did not get to its end: the first cause, as people and scripts are told. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.outcome import describe_outcome, has_succeeded
from orchestrator.core.base.problem import Problem
from orchestrator.core.fabric.fabric_verdict import list_names
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.load import Scenario
from orchestrator.core.model.plan import Plan
from orchestrator.core.run.connectivity import LinksBroken
from orchestrator.core.run.events import Divided, Occupied, Phase, RankExited
from orchestrator.core.run.evidence import Stalled
from orchestrator.core.run.hang import Blame
from orchestrator.core.run.node_state import Ending
from orchestrator.core.run.state import LEASE, RunState, ended_well
from orchestrator.core.verdict import last_words as words
from orchestrator.core.verdict.result import FailureResult

Cause = tuple[FailureResult, ExitCode]
TOO_SHORT = "min duration not satisfied"


def first_cause(state: RunState) -> Ending | None:
    """The earliest ending that is a failure of its own (a rank's precedes its launcher's); or the
    scheduler's word that it ended them all.
    """
    first = next(iter(state.failures), None)
    return first and (words.ended_from_outside(state.endings, first) or first)


def ending_name(ending: Ending) -> str:
    """``rank 3`` or the launcher's label."""
    return f"rank {ending.rank}" if isinstance(ending, RankExited) else ending.label


def log_name(ending: Ending) -> str:
    """What the files with its output are called, but for ``.out`` and ``.err``."""
    return f"rank-{ending.rank}" if isinstance(ending, RankExited) else ending.label


def failure_of(state: RunState) -> Cause | None:
    """The first cause of a run that did not get to its end."""
    if state.refusal is not None:
        return _plan_refused(state), ExitCode.PREFLIGHT
    if state.occupied is not None:
        return _node_occupied(state.occupied), ExitCode.BUSY
    # Nodes that do not need each other: one that fails does not end the run.
    apart = state.launching and state.plan is not None and state.plan.apart
    if not apart and (failure := _failure_together(state)) is not None:
        return failure
    if state.overdue is not None:
        return _phase_overdue(state), ExitCode.TIMED_OUT
    if state.stop is not None:
        return None
    if state.lapsed:
        return _lease_lapsed(state), ExitCode.BUSY
    return _incomplete_apart(state) if apart else _left_open(state)


def _failure_together(state: RunState) -> Cause | None:
    """Ranks that need each other: one that fails ends the run, also one that is to end."""
    if state.links is not None:
        return _links_cut(state, state.links), ExitCode.RUN_FAILED
    if state.hang is not None and state.stall is not None:
        return _hung_ranks(state, state.stall, state.hang), ExitCode.RUN_FAILED
    return _failed_by_itself(state) if state.launching else None


def _failed_by_itself(state: RunState) -> Cause | None:
    """The first rank that failed, else the first node that was lost."""
    ending = first_cause(state)
    if ending is not None and not _stopped_before(state, ending):
        return _ended_badly(state, ending)
    lost = _node_lost(state)
    return None if lost is None else (lost, ExitCode.RUN_FAILED)


def _incomplete_apart(state: RunState) -> Cause | None:
    """Nodes that do not need each other: what counts is whether the work is complete."""
    if (broken := _broken_service(state)) is not None:
        return broken
    if state.require_plan().rung == CommMode.LEASES:
        return _unfinished_work(state, state.divided or Divided(total=0, done=0))
    return None if any_node_done(state) else _first_of_all(state)


def any_node_done(state: RunState) -> bool:
    """Whether all ranks of at least one node came to a good end."""
    well = {e.rank for e in state.endings if isinstance(e, RankExited) and ended_well(e)}
    return any(well.issuperset(node.ranks) for node in (state.plan.nodes if state.plan else ()))


def _first_of_all(state: RunState) -> Cause | None:
    """Nobody got to the end: what went wrong first."""
    return _failed_by_itself(state) or _left_open(state)


def _left_open(state: RunState) -> Cause | None:
    """No rank failed, and yet not all came to their end."""
    if not state.launching or state.plan is None:
        return None
    return _broken_rank(state) or _unfinished_rank(state, state.plan)


def _broken_service(state: RunState) -> Cause | None:
    """What feeds the ranks over SSH came to its own end."""
    for node, phase, problem in state.problems:
        if not node and phase is Phase.WATCH:
            return _from_problem(node, problem), ExitCode.RUN_FAILED
    return None


def _unfinished_work(state: RunState, work: Divided) -> Cause | None:
    """Divisible work: every sample has exactly one output, or the run says which is missing."""
    if work.conflicts:
        failure = FailureResult(
            id="OR-WORK-002",
            cause=f"{work.conflicts} samples have conflicting outputs",
            remedy="faulty hardware or a nondeterministic workload: "
            f"orchestrate logs {state.request.run_id} shows what each node wrote",
        )
        return failure, ExitCode.RUN_FAILED
    if work.done < work.total - work.failed or not work.total:
        return _incomplete_work(state, work), ExitCode.BUSY
    if work.failed:
        failure = FailureResult(
            id="OR-WORK-003",
            cause=f"{work.failed} of {work.total} samples failed",
            remedy=f"orchestrate logs {state.request.run_id}",
        )
        return failure, ExitCode.RUN_FAILED
    return _invalid_test(state, work)


def _invalid_test(state: RunState, work: Divided) -> Cause | None:
    """All samples are done, but not as the rules of the load test ask for."""
    if not work.invalid:
        return None
    source, terms = state.request.job.workload.load, state.request.load
    remedy = "loadgen/ in the run's folder has LoadGen's own summary and detail log"
    offline = terms is not None and terms.scenario is Scenario.OFFLINE
    if source is not None and offline and TOO_SHORT in work.invalid:
        remedy = (
            f"--set {source.target_qps}=N with N above loadgen_samples_per_s: by it LoadGen "
            f"chooses how many samples fill the shortest test; {remedy}"
        )
    failure = FailureResult(
        id="OR-LOAD-004", cause=f"the load test is INVALID: {work.invalid}", remedy=remedy
    )
    return failure, ExitCode.RUN_FAILED


def _incomplete_work(state: RunState, work: Divided) -> FailureResult:
    """What is done is kept; whoever was the first to fail is named."""
    first = _first_of_all(state)
    why = f": {first[0].cause}" if first else ""
    again = "begins the load test anew" if state.request.load else "does what is missing"
    return FailureResult(
        id="OR-WORK-001",
        cause=f"incomplete: {work.done} of {work.total} samples are done{why}",
        node=first[0].node if first else None,
        rank=first[0].rank if first else None,
        remedy=f"orchestrate resume {state.request.run_id} {again}",
        last_line=first[0].last_line if first else "",
        log=first[0].log if first else "",
    )


def _links_cut(state: RunState, broken: LinksBroken) -> FailureResult:
    return FailureResult(
        id="OR-NET-002",
        cause=f"{describe_links(broken.links)} any more (for {broken.seconds:.0f} s, "
        "and the ranks make no progress)",
        node=broken.links[0][0] if broken.links else None,
        remedy=f"repair the network between them; orchestrate resume --retry "
        f"{state.request.run_id} continues from the checkpoints",
        others=_other_ranks(state),
    )


def describe_links(links: tuple[tuple[str, str], ...]) -> str:
    """``vh1 does not reach vh2``, or both directions at once, for a sentence to go on with."""
    broken = set(links)
    both = {(start, end) for start, end in links if (end, start) in broken}
    told = [
        f"{start} and {end} do not reach each other"
        if (start, end) in both
        else f"{start} does not reach {end}"
        for start, end in links
        if (start, end) not in both or start < end
    ]
    more = f" (and {len(told) - 3} more links)" if len(told) > 3 else ""
    return ", ".join(told[:3]) + more


def _stopped_before(state: RunState, ending: Ending) -> bool:
    """After a stop request, ranks that end badly do so because of it."""
    return state.stop is not None and ending.at >= state.stop.at


def _plan_refused(state: RunState) -> FailureResult:
    assert state.refusal is not None
    problem = state.refusal.problem
    excluded = state.refusal.excluded
    node = excluded[0].node if excluded else None
    deeper = state.nodes[node].problem if node in state.nodes and node else None
    return FailureResult(
        id=deeper.id if deeper else problem.id,
        cause=problem.message,
        node=node,
        remedy=(deeper.remedy if deeper else "") or problem.remedy,
    )


def _node_occupied(occupied: Occupied) -> FailureResult:
    return FailureResult(
        id="OR-LOCK-001",
        cause=f"{occupied.node} is in use by {occupied.holder}",
        node=occupied.node,
        remedy="queue with --wait SECONDS, choose other nodes, or stop that run",
    )


def _lease_lapsed(state: RunState) -> FailureResult:
    node = next(n for n, s in state.nodes.items() if s.halting and s.halting.why == LEASE)
    lease_s = state.request.budgets.lease_s or 0.0
    return FailureResult(
        id="OR-LEASE-001",
        cause=f"ranks on {node} exited: lease expired after {lease_s:g} s without a "
        "coordinator heartbeat",
        node=node,
        remedy=f"orchestrate resume {state.request.run_id} continues from the checkpoints; "
        "--unattended continue lets ranks run without a coordinator",
    )


def _unfinished_rank(state: RunState, plan: Plan) -> Cause | None:
    """A rank of which no good end is known is no success, whoever ended it."""
    well = {e.rank for e in state.endings if isinstance(e, RankExited) and has_succeeded(e.outcome)}
    for share in plan.nodes:
        for rank in sorted(set(share.ranks) - well):
            failure = FailureResult(
                id="OR-RUN-002",
                cause=f"rank {rank} on {share.name}: no exit status recorded",
                node=share.name,
                rank=rank,
                remedy=_read_logs(state, share.name, rank),
            )
            return failure, ExitCode.RUN_FAILED
    return None


def _ended_badly(state: RunState, ending: Ending) -> Cause:
    rank = ending.rank if isinstance(ending, RankExited) else None
    failure = FailureResult(
        id="OR-RUN-001",
        cause=f"{ending_name(ending)} on {ending.node} {describe_outcome(ending.outcome)}",
        node=ending.node,
        rank=rank,
        remedy=_read_logs(state, ending.node, rank),
        last_line=ending.last_line,
        log=f"logs/{ending.node}/{log_name(ending)}.err",
        others=_other_ranks(state, ending),
    )
    told = words.own_error(ending, state.request.job.workload.failures)
    if told is None:
        return failure, ExitCode.RUN_FAILED
    told_failure = replace(failure, id=told.id, cause=told.cause, remedy=told.meaning.remedy)
    return told_failure, told.meaning.code


def _hung_ranks(state: RunState, stall: Stalled, cause: Blame) -> FailureResult:
    node, rank = cause.node, cause.rank
    seen = [e for e in state.inspections[node].ranks if e.rank == rank]
    return FailureResult(
        id="OR-HANG-001",
        cause=f"{cause.sentence} (no progress for {stall.silent_s:.0f} s)",
        node=node,
        rank=rank,
        remedy=_read_logs(state, node, rank)
        + "; if such a silence is normal: --budget hang=SECONDS, or hang=off",
        last_line=seen[0].last_line if seen else "",
        log="" if rank is None else f"logs/{node}/rank-{rank}.err",
        others=tuple(other for other in _other_ranks(state) if other != f"{node}/rank {rank}"),
        evidence="hang",
    )


def _read_logs(state: RunState, node: str, rank: int | None) -> str:
    """The command that shows what was written there."""
    ranks = f" --ranks {rank}" if rank is not None else ""
    return f"orchestrate logs {state.request.run_id} --nodes {node}{ranks}"


def _other_ranks(state: RunState, cause: Ending | None = None) -> tuple[str, ...]:
    """Every other rank that we ended because of ``cause``; not those that failed by themselves."""
    ended = (
        e for e in state.endings if e is not cause and e.by_us and not has_succeeded(e.outcome)
    )
    return tuple(f"{e.node}/{ending_name(e)}" for e in ended if isinstance(e, RankExited))


def _node_lost(state: RunState) -> FailureResult | None:
    for name, node in state.planned():
        if node.lost is not None:
            lost = _from_problem(name, node.lost)
            later = clear_later(state.request.run_id, [name])
            return replace(lost, remedy="; ".join(filter(None, (lost.remedy, later))))
    return None


def clear_later(run_id: str, names: Sequence[str]) -> str:
    """What becomes of nodes that nobody can ask now: their ranks end with their lease at the
    latest, unless they were to live on without; whether they did is still to be seen.
    """
    verb = "answers" if len(names) == 1 else "answer"
    return (
        f"once {list_names(names)} {verb} again, orchestrate stop {run_id} ends and verifies "
        "what is left there"
    )


def _from_problem(node: str, problem: Problem) -> FailureResult:
    """``node`` "" = none in particular."""
    cause = f"{node}: {problem.message}" if node else problem.message
    return FailureResult(id=problem.id, cause=cause, node=node or None, remedy=problem.remedy)


def _phase_overdue(state: RunState) -> FailureResult:
    assert state.overdue is not None
    waiting = [name for name, node in state.planned() if node.concluded is None]
    return FailureResult(
        id="OR-TIME-001",
        cause=f"{_what_took_long(state.overdue.phase)} took longer than "
        f"{state.overdue.after_s:g} s",
        node=waiting[0] if waiting else None,
        remedy=f"orchestrate logs {state.request.run_id}, then raise --timeout if it made progress",
    )


def _what_took_long(phase: Phase) -> str:
    return "the job" if phase is Phase.WATCH else f"phase {phase.value}"


def _broken_rank(state: RunState) -> Cause | None:
    after = (Phase.LAUNCH, Phase.WATCH, Phase.STOP, Phase.COLLECT, Phase.CONCLUDED)
    for node, phase, problem in state.problems:
        if phase in after:
            busy = phase is Phase.COLLECT or problem.id == "OR-AGENT-BUSY"
            code = ExitCode.BUSY if busy else ExitCode.RUN_FAILED
            return _from_problem(node, problem), code
    return None
