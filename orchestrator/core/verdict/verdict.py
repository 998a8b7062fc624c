"""From the final state to the :class:`Result`: first cause, gates, exit code. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.model.workload import Direction, Gate, Metric
from orchestrator.core.run.events import Divided
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.cost import cost_of
from orchestrator.core.verdict.energy import energy_of
from orchestrator.core.verdict.failure_cause import failure_of
from orchestrator.core.verdict.node_status import is_degraded, nodes_of, rungs_of
from orchestrator.core.verdict.result import (
    FailureResult,
    MetricResult,
    OutputsResult,
    Result,
    Samples,
    Status,
    Verdict,
    names_a_node,
)
from orchestrator.core.verdict.slow_nodes import describe_slow_nodes

MAX_LEFT_OUT = 3


def conclude_run(state: RunState, *, timings: Mapping[str, float], report: str) -> Result:
    """The verdict. ``timings`` maps phases to seconds; ``report`` is the report's path."""
    metrics = dict(_metric_results(state))
    failure, code = failure_of(state) or _gate_failure(state, metrics) or (None, ExitCode.DONE)
    if failure is None and state.stop is not None:
        status, code = Status.STOPPED, _stop_code(state.stop.by)
    elif failure is None and is_degraded(state):
        status = Status.DEGRADED
        code = ExitCode.DEGRADED if state.request.fail_on_degraded else ExitCode.DONE
    else:
        status = Status.SUCCEEDED if failure is None else Status.FAILED
    request, energy = state.request, energy_of(state)
    used = tuple(share.name for share in state.plan.nodes) if state.plan else ()
    return Result(
        run_id=request.run_id,
        status=status,
        exit_code=code,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        launcher=state.plan.launcher if state.plan else request.launcher,
        world_size=state.plan.world_size if state.plan else 0,
        ladder=tuple(rungs_of(state)),
        nodes=tuple(nodes_of(state)),
        metrics=metrics,
        samples=_sample_counts(state.divided),
        energy=energy,
        cost=cost_of(request.cluster, used, sum(timings.values()), energy, request.prices),
        timings=timings,
        failure=failure,
        warnings=(
            *(state.plan.warnings if state.plan else ()),
            *describe_slow_nodes({name: metric.value for name, metric in metrics.items()}),
            *_left_on_nodes(state),
        ),
        outputs=dict(_node_outputs(state)),
        report=report,
        notice=request.job.workload.notice,
        begins_anew=request.begins_anew,
    )


def _node_outputs(state: RunState) -> Iterator[tuple[str, OutputsResult]]:
    for name, node in state.nodes.items():
        if (came := node.collected) is not None:
            yield (
                name,
                OutputsResult(
                    files=came.files,
                    bytes=came.bytes,
                    links=came.links,
                    left=came.left,
                    left_out=came.left_out,
                ),
            )


def _left_on_nodes(state: RunState) -> Iterator[str]:
    """Per node, which outputs did not come."""
    for name, came in _node_outputs(state):
        if came.left:
            named = "; ".join(came.left_out[:MAX_LEFT_OUT])
            more = "; ..." if came.left > MAX_LEFT_OUT else ""
            noun = "output" if came.left == 1 else "outputs"
            yield f"{name}: {came.left} {noun} did not come: {named}{more}"


def judge_figure(value: float | None, gate: Gate | None) -> Verdict:
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


def _sample_counts(work: Divided | None) -> Samples | None:
    if work is None:
        return None
    return Samples(total=work.total, done=work.done, failed=work.failed, duplicates=work.duplicates)


def _metric_results(state: RunState) -> Iterator[tuple[str, MetricResult]]:
    declared = state.request.job.workload.metrics
    workers = [spec.name for spec in state.request.cluster.workers]
    reported = state.figures
    names = [name for name, metric in declared.items() if metric.required or name in reported]
    for name in [*names, *(name for name in reported if name not in declared)]:
        metric, base = declared.get(name), _base_metric(declared, name)
        figure = reported.get(name)
        value = figure.value if figure else None
        gate = metric.gate if metric else None
        yield (
            name,
            MetricResult(
                value=value,
                unit=base.unit if base else figure.unit if figure else "",
                verdict=judge_figure(value, gate),
                min=gate.min if gate else None,
                max=gate.max if gate else None,
                direction=_direction(base, name, workers),
                terminal=metric.terminal if metric else True,
            ),
        )


def _base_metric(declared: Mapping[str, Metric], name: str) -> Metric | None:
    """The declared metric whose name is the longest beginning of ``name`` that ends at a dot:
    ``tokens_per_s`` of ``tokens_per_s.bf16.batch8``.
    """
    parts = name.split(".")
    beginnings = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((declared[begin] for begin in beginnings if begin in declared), None)


def _direction(base: Metric | None, name: str, workers: Sequence[str]) -> Direction:
    """That of the base metric. A figure of one node has none: comparisons judge the whole, since
    with every node's figure among them each would have to differ more to be told from chance.
    """
    if base is None:
        return Direction.INFO
    suffix = name.removeprefix(base.name).removeprefix(".")
    return Direction.INFO if names_a_node(suffix, workers) else base.direction


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
    return FailureResult(
        id="OR-GATE-001", cause=missed_gate_text(name, metric), remedy=_look_into(state, name)
    )


def missed_gate_text(name: str, metric: MetricResult) -> str:
    """``loss: the workload reported 4 nats, its gate asks for at most 3``."""
    bounds = [
        f"at least {metric.min:g}" if metric.min is not None else "",
        f"at most {metric.max:g}" if metric.max is not None else "",
    ]
    wanted = " and ".join(bound for bound in bounds if bound) or "a value"
    got = "nothing" if metric.value is None else f"{metric.value:g} {metric.unit}".rstrip()
    return f"{name}: the workload reported {got}, its gate asks for {wanted}"


def _look_into(state: RunState, name: str) -> str:
    """Where it is told how the figure came about, and where it is set what it must be."""
    run, workload = state.request.run_id, state.request.job.workload
    figure = state.figures.get(name)
    if figure is None:
        text = f"orchestrate logs {run} shows what the ranks wrote instead of {name}"
    else:
        text = f"orchestrate logs {run} --ranks {figure.rank} shows what the rank wrote that "
        text += "reported it, the report draws what was reported on the way"
    if name in workload.metrics:
        text += f"; what it must be is set in {workload.source}"
    return text


def _stop_code(by: str) -> ExitCode:
    return ExitCode.INTERRUPTED if by == "SIGINT" else ExitCode.TERMINATED
