"""A plan for people: exactly what will run where, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from orchestrator.adapters.report.prediction_text import planned_rows
from orchestrator.core.base.command import Command, render_human
from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.plan import Budgets, NodePlan, Plan, ProcessPlan, Variable
from orchestrator.parsing.replies.display_text import clean_line
from orchestrator.view.terminal.text import brief_text, count_noun, format_seconds, format_size

if TYPE_CHECKING:
    from orchestrator.core.costs.job_prediction import JobPrediction

MAX_SKIPPED = 20


@wire("Travel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """What is sent to nodes that have none of it. ``skipped``: one text per rule."""

    files: int
    bytes: int
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_lines(
    plan: Plan,
    travel: Travel | None,
    load_test: Sequence[str] = (),
    prediction: JobPrediction | None = None,
    pods: Mapping[str, str] | None = None,
    *,
    connections: str = "",
) -> Iterator[str]:
    """The whole plan, line by line; ``load_test``: what a load generator does during the run;
    ``pods``: how those are made that stand for the nodes; ``connections``: ``kept_text``.
    """
    yield from _head(plan, made=bool(pods))
    rows = (f"{name}: {brief_text(value, 300)}" for name, value in (pods or {}).items())
    yield from _section("pods, made by --launcher kubernetes", rows)
    yield from _section("nodes", (_node(share) for share in plan.nodes))
    excluded = (f"{brief_text(e.node)}: {brief_text(e.reason, 300)}" for e in plan.excluded)
    yield from _section("excluded", excluded)
    yield from _section("ladder", _ladder(plan))
    yield from _section("LoadGen", (brief_text(line, 300) for line in load_test))
    yield from _section("predicted", _predicted(prediction))
    yield from _section("what travels", _travel(plan, travel))
    yield from _section("connections", [connections] if connections else [])
    yield from _section("time budgets", _budgets(plan.budgets))
    yield from _section("unattended", [unattended_text(plan.budgets)])
    warnings = (*plan.warnings, *(travel.warnings if travel else ()))
    yield from _section("warnings", (brief_text(warning, 300) for warning in warnings))
    for share in plan.nodes:
        yield from _section(f"on {brief_text(share.name)}", _share(share))


def _head(plan: Plan, *, made: bool) -> Iterator[str]:
    preset = f", preset {brief_text(plan.preset)}" if plan.preset else ""
    yield f"{brief_text(plan.workload)} on {brief_text(plan.cluster)}{preset}"
    yield f"  {count_noun(plan.world_size, 'rank')} on {count_noun(len(plan.nodes), 'node')}"
    launcher = f"kubernetes, in its pods {plan.launcher}" if made else plan.launcher
    yield f"  launcher {launcher}: {brief_text(plan.launcher_reason)}"
    if plan.proves_fabric:
        ranks = count_noun(plan.world_size, "rank")
        yield f"  fabric probe: an all-reduce over {ranks} before launch"
    if plan.rendezvous is not None:
        yield f"  rendezvous at {brief_text(plan.rendezvous.address)} port {plan.rendezvous.port}"
    if plan.assumed and made:
        yield "  ASSUMED: there are no pods yet to ask; GPUs as in the inventory"
    elif plan.assumed:
        yield "  ASSUMED: nodes not contacted; GPUs and interpreters as in the inventory"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    body = list(lines)
    if body:
        yield ""
        yield title
        yield from (f"  {line}" for line in body)


def _node(share: NodePlan) -> str:
    gpus = f"GPUs {number_ranges(share.gpus)}" if share.gpus else "no GPU"
    head = (
        f"{brief_text(share.name)}: node rank {share.node_rank}, ranks {number_ranges(share.ranks)}"
    )
    return f"{head}, {gpus}, {brief_text(share.interpreter)}"


def _ladder(plan: Plan) -> Iterator[str]:
    for rung in plan.ladder:
        yield f"{rung.intent:<5} {rung.rung}: {brief_text(rung.reason, 300)}"


def _predicted(prediction: JobPrediction | None) -> Iterator[str]:
    if prediction is None:
        return
    if prediction.without:
        yield f"nothing: {brief_text(prediction.without, 300)}"
        return
    yield from (f"{brief_text(name)}: {told}" for name, told in planned_rows(prediction))
    yield f"in 9 of 10 runs within these bounds, from {brief_text(prediction.basis, 200)}"


def _travel(plan: Plan, travel: Travel | None) -> Iterator[str]:
    if travel is None:
        return
    files = count_noun(travel.files, "file")
    code = brief_text(plan.code or "unknown", 40)
    yield f"{files}, {format_size(travel.bytes)} at most, as code {code}"
    for skipped in travel.skipped[:MAX_SKIPPED]:
        yield f"left out: {brief_text(skipped, 300)}"
    if len(travel.skipped) > MAX_SKIPPED:
        yield f"left out: by {len(travel.skipped) - MAX_SKIPPED} more rules"


def _budgets(budgets: Budgets) -> Iterator[str]:
    told = [
        (field.name.removesuffix("_s"), getattr(budgets, field.name))
        for field in fields(budgets)
        if field.name.endswith("_s") and field.name != "lease_s"
    ]
    none = {"hang": "not watched", "link": "not watched"}
    yield ", ".join(
        f"{name} "
        f"{none.get(name, 'as long as it needs') if value is None else format_seconds(value)}"
        for name, value in told
    )


def unattended_text(budgets: Budgets, run_id: str = "RUN") -> str:
    """What the ranks do when their coordinator stays away."""
    if budgets.lease_s is None:
        return f"ranks run until they are done; orchestrate resume {run_id} collects them"
    return f"ranks end {budgets.lease_s:g} s after the coordinator's last heartbeat"


def kept_text(nodes: int, keep_s: int) -> str:
    """What becomes of the connections to so many nodes; empty where there are none."""
    if not nodes:
        return ""
    if not keep_s:
        return "end with the run: ORCHESTRATE_KEEP_CONNECTIONS is 0"
    kept = f"to {count_noun(nodes, 'node')}, kept for {format_seconds(keep_s)} after their use"
    return f"{kept}; orchestrate connections list | close"


def _locks(share: NodePlan) -> Iterator[str]:
    own = ", ".join(lock.name for lock in share.locks if not lock.shared)
    if own:
        yield f"kept from other runs: {own}"


def _share(share: NodePlan) -> Iterator[str]:
    yield from _locks(share)
    for process in share.processes:
        yield _command(process)
        yield from (f"    {_variable(variable)}" for variable in process.env)
    yield from (_variable(variable) for variable in share.env)


def _command(process: ProcessPlan) -> str:
    return f"{process.label}: {clean_line(render_human(Command(argv=process.argv)))}"


def _variable(variable: Variable) -> str:
    setting = clean_line(f"{variable.name}={variable.value}")
    return f"{setting}   # {variable.origin}: {brief_text(variable.reason, 300)}"


def number_ranges(numbers: Sequence[int]) -> str:
    """``0-7,9``; ``none`` for nothing."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts) or "none"
