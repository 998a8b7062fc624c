"""From the final state to the :class:`Result`: first cause, gates, exit code. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from orchestrator.core.errors import ExitCode
from orchestrator.core.events import Occupied, Phase, Problem, RankExited
from orchestrator.core.evidence import Stalled
from orchestrator.core.hang import Blame
from orchestrator.core.outcome import describe, succeeded
from orchestrator.core.plan import Plan
from orchestrator.core.result import (
    FailureResult,
    MetricResult,
    NodeResult,
    Result,
    RungResult,
    Status,
    Verdict,
)
from orchestrator.core.state import LEASE, Ending, NodeState, RunState
from orchestrator.core.workload import Gate, Metric


def conclude(state: RunState, *, timings: Mapping[str, float], report: str) -> Result:
    """The verdict. ``timings`` maps phases to seconds; ``report`` is the report's path."""
    metrics = dict(_metrics(state))
    failure, code = _failure(state) or _gate_failure(state, metrics) or (None, ExitCode.DONE)
    if failure is None and state.stop is not None:
        status, code = Status.STOPPED, _stop_code(state.stop.by)
    else:
        status = Status.SUCCEEDED if failure is None else Status.FAILED
    request = state.request
    return Result(
        run_id=request.run_id,
        status=status,
        exit_code=code,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        launcher=state.plan.launcher if state.plan else request.launcher,
        world_size=state.plan.world_size if state.plan else 0,
        ladder=tuple(_ladder(state.plan, failure)) if state.plan else (),
        nodes=tuple(_nodes(state)),
        metrics=metrics,
        timings=timings,
        failure=failure,
        warnings=state.plan.warnings if state.plan else (),
        report=report,
    )


def judge(value: float | None, gate: Gate | None) -> Verdict:
    """A figure against its gate. NaN and infinity are invalid, None is not-run."""
    if value is None:
        return Verdict.NOT_RUN
    if not math.isfinite(value):
        return Verdict.INVALID
    if gate is None:
        return Verdict.UNGATED
    low = gate.min is not None and value < gate.min
    high = gate.max is not None and value > gate.max
    return Verdict.FAIL if low or high else Verdict.PASS


def first_cause(state: RunState) -> Ending | None:
    """The earliest ending that is a failure of its own (a rank's precedes its launcher's)."""
    return next(iter(state.failures), None)


def ending_name(ending: Ending) -> str:
    """``rank 3`` or the launcher's label."""
    rank = getattr(ending, "rank", None)
    return f"rank {rank}" if rank is not None else str(getattr(ending, "label", "process"))


def _metrics(state: RunState) -> Iterator[tuple[str, MetricResult]]:
    declared = state.request.job.workload.metrics
    reported = state.figures
    names = [name for name, metric in declared.items() if metric.required or name in reported]
    for name in [*names, *(name for name in reported if name not in declared)]:
        metric = declared.get(name)
        figure = reported.get(name)
        value = figure.value if figure else None
        gate = metric.gate if metric else None
        yield (
            name,
            MetricResult(
                value=value,
                unit=_unit(metric, figure.unit if figure else ""),
                verdict=judge(value, gate),
                min=gate.min if gate else None,
                max=gate.max if gate else None,
            ),
        )


def _unit(metric: Metric | None, reported: str) -> str:
    return metric.unit if metric else reported


def _failure(state: RunState) -> tuple[FailureResult, ExitCode] | None:
    """The first cause of a run that did not get to its end."""
    if state.refusal is not None:
        return _refused(state), ExitCode.PREFLIGHT
    if state.occupied is not None:
        return _occupied(state.occupied), ExitCode.BUSY
    if state.hang is not None and state.stall is not None:
        return _hung(state, state.stall, state.hang), ExitCode.RUN_FAILED
    if state.launching:
        ending = first_cause(state)
        if ending is not None and not _stopped_before(state, ending):
            return _ended_badly(state, ending), ExitCode.RUN_FAILED
        if (lost := _lost(state)) is not None:
            return lost, ExitCode.RUN_FAILED
    if state.overdue is not None:
        return _overdue(state), ExitCode.TIMED_OUT
    if state.stop is not None:
        return None
    if state.lapsed:
        return _lapsed(state), ExitCode.BUSY
    if state.problems and state.launching and (broken := _broken(state)) is not None:
        return broken
    return _unfinished(state)


def _stopped_before(state: RunState, ending: Ending) -> bool:
    """After a stop request, ranks that end badly do so because of it."""
    return state.stop is not None and ending.at >= state.stop.at


def _refused(state: RunState) -> FailureResult:
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


def _occupied(occupied: Occupied) -> FailureResult:
    return FailureResult(
        id="OR-LOCK-001",
        cause=f"{occupied.node} is in use by {occupied.holder}",
        node=occupied.node,
        remedy="queue with --wait SECONDS, choose other nodes, or stop that run",
    )


def _lapsed(state: RunState) -> FailureResult:
    node = next(n for n, s in state.nodes.items() if s.halting and s.halting.why == LEASE)
    lease_s = state.request.budgets.lease_s or 0.0
    return FailureResult(
        id="OR-LEASE-001",
        cause=f"the ranks on {node} ended themselves: no word from the coordinator for "
        f"{lease_s:g} s",
        node=node,
        remedy=f"orchestrate resume {state.request.run_id} goes on from the checkpoints; "
        "--unattended continue lets ranks go on without a coordinator",
    )


def _unfinished(state: RunState) -> tuple[FailureResult, ExitCode] | None:
    """A rank of which no good end is known is no success, whoever ended it."""
    if not state.launching or state.plan is None:
        return None
    well = {e.rank for e in state.endings if isinstance(e, RankExited) and succeeded(e.outcome)}
    for share in state.plan.nodes:
        for rank in sorted(set(share.ranks) - well):
            failure = FailureResult(
                id="OR-RUN-002",
                cause=f"nothing tells how rank {rank} on {share.name} ended",
                node=share.name,
                rank=rank,
                remedy=f"orchestrate logs {state.request.run_id} --ranks {rank}",
            )
            return failure, ExitCode.RUN_FAILED
    return None


def _ended_badly(state: RunState, ending: Ending) -> FailureResult:
    rank = getattr(ending, "rank", None)
    name = f"rank-{rank}" if rank is not None else str(getattr(ending, "label", "launcher"))
    return FailureResult(
        id="OR-RUN-001",
        cause=f"{ending_name(ending)} on {ending.node} {describe(ending.outcome)}",
        node=ending.node,
        rank=rank,
        remedy=f"orchestrate logs {state.request.run_id} --nodes {ending.node}"
        + (f" --ranks {rank}" if rank is not None else ""),
        last_line=ending.last_line,
        log=f"logs/{ending.node}/{name}.err",
        others=_others(state, ending),
    )


def _hung(state: RunState, stall: Stalled, cause: Blame) -> FailureResult:
    run, node, rank = state.request.run_id, cause.node, cause.rank
    seen = [e for e in state.inspections[node].ranks if e.rank == rank]
    return FailureResult(
        id="OR-HANG-001",
        cause=f"{cause.sentence} (no progress for {stall.silent_s:.0f} s)",
        node=node,
        rank=rank,
        remedy=f"orchestrate logs {run} --nodes {node}"
        + (f" --ranks {rank}" if rank is not None else "")
        + "; if such a silence is normal: --budget hang=SECONDS, or hang=off",
        last_line=seen[0].last_line if seen else "",
        log="" if rank is None else f"logs/{node}/rank-{rank}.err",
        others=tuple(other for other in _others(state) if other != f"{node}/rank {rank}"),
        evidence="hang",
    )


def _others(state: RunState, cause: Ending | None = None) -> tuple[str, ...]:
    """Every other rank that we ended because of ``cause``; not those that failed by themselves."""
    ended = (e for e in state.endings if e is not cause and e.by_us and not succeeded(e.outcome))
    return tuple(f"{e.node}/{ending_name(e)}" for e in ended if hasattr(e, "rank"))


def _lost(state: RunState) -> FailureResult | None:
    for name, node in state.planned():
        if node.lost is not None:
            return _from_problem(name, node.lost)
    return None


def _from_problem(node: str, problem: Problem) -> FailureResult:
    return FailureResult(
        id=problem.id, cause=f"{node}: {problem.message}", node=node, remedy=problem.remedy
    )


def _overdue(state: RunState) -> FailureResult:
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


def _broken(state: RunState) -> tuple[FailureResult, ExitCode] | None:
    after = (Phase.LAUNCH, Phase.WATCH, Phase.STOP, Phase.COLLECT)
    for node, phase, problem in state.problems:
        if phase in after:
            busy = phase is Phase.COLLECT or problem.id == "OR-AGENT-BUSY"
            code = ExitCode.BUSY if busy else ExitCode.RUN_FAILED
            return _from_problem(node, problem), code
    return None


def _gate_failure(
    state: RunState, metrics: Mapping[str, MetricResult]
) -> tuple[FailureResult, ExitCode] | None:
    if state.stop is not None:
        return None
    workload = state.request.job.workload
    for name, metric in metrics.items():
        required = name in workload.metrics and workload.metrics[name].required
        if metric.verdict in (Verdict.FAIL, Verdict.INVALID) or (
            required and metric.verdict is Verdict.NOT_RUN
        ):
            return _missed_gate(state, name, metric), ExitCode.RUN_FAILED
    return None


def _missed_gate(state: RunState, name: str, metric: MetricResult) -> FailureResult:
    bounds = [
        f"at least {metric.min:g}" if metric.min is not None else "",
        f"at most {metric.max:g}" if metric.max is not None else "",
    ]
    wanted = " and ".join(bound for bound in bounds if bound) or "a value"
    got = "nothing" if metric.value is None else f"{metric.value:g} {metric.unit}"
    return FailureResult(
        id="OR-GATE-001",
        cause=f"{name}: the workload reported {got}, its gate asks for {wanted}",
        remedy=f"orchestrate show {state.request.run_id}",
    )


def _stop_code(by: str) -> ExitCode:
    return ExitCode.INTERRUPTED if by == "SIGINT" else ExitCode.TERMINATED


def _ladder(planned: Plan, failure: FailureResult | None) -> Iterator[RungResult]:
    for rung in planned.ladder:
        if rung.intent == "use":
            outcome = "used" if failure is None or failure.id != "OR-NET-001" else "failed"
        else:
            outcome = "skipped"
        yield RungResult(rung=rung.rung, outcome=outcome, reason=rung.reason)


def _nodes(state: RunState) -> Iterator[NodeResult]:
    excluded = state.plan.excluded if state.plan else ()
    if state.refusal is not None:
        excluded = state.refusal.excluded
    reasons = {exclusion.node: exclusion.reason for exclusion in excluded}
    cause = first_cause(state)
    for name, node in state.nodes.items():
        if name in reasons:
            yield NodeResult(name=name, state="excluded", reason=reasons[name])
        else:
            label, reason = _node_state(state, name, node, cause)
            yield NodeResult(name=name, state=label, reason=reason)


def _node_state(
    state: RunState, name: str, node: NodeState, cause: Ending | None
) -> tuple[str, str]:
    if node.lost is not None:
        return "lost", node.lost.message
    if node.swept is not None and not node.swept.clean:
        return "dirty", f"still running: {', '.join(node.swept.survivors)}"
    if node.swept is not None and node.swept.gpu_drained is False:
        return "dirty", "no process is left, but GPU memory did not come back"
    if node.problem is not None:
        return "failed", node.problem.message
    if state.hang is not None and state.hang.node == name:
        return "failed", state.hang.sentence
    if cause is not None and cause.node == name:
        return "failed", f"{ending_name(cause)} {describe(cause.outcome)}"
    if state.halted and state.launching:
        return "stopped", "stopped by orchestrate; verified clean" if node.swept else ""
    return ("used", "") if state.launching else ("unused", "")
