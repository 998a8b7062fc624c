"""``orchestrate plan``: exactly what a run would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.job_options import job_options, pick_job
from orchestrator.cli.options.shared import json_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.costs.job_prediction import JobPrediction
    from orchestrator.core.model.facts import Facts
    from orchestrator.core.model.plan import Plan
    from orchestrator.core.model.request import RunRequest

PREDICTING_TRAINING = "orchestrator.adapters.costs.predict_training_run"
PREDICTING_INFERENCE = "orchestrator.adapters.costs.predict_inference_run"


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@json_option
@click.option("--offline", is_flag=True, help="Contact no node; assume the inventory.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCRIPT ARGS...]")
def plan(words: tuple[str, ...], offline: bool, as_json: bool, **given: Any) -> int:
    """Show nodes, ranks, argv, environment with reasons, what travels, and budgets.

    Takes those options of run that say what is to run and where, not those of its course (--run-id,
    --detach, --wait, --fail-on). Starts nothing and leaves nothing behind.
    """
    import os
    from dataclasses import replace

    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.load_request import load_request, pods_planned, take_code
    from orchestrator.cli.output import print_json
    from orchestrator.core.base.codec import to_json
    from orchestrator.view.tables.plan_text import Travel, plan_lines, unattended_text

    request = load_request(pick_job(given), words, run_id="planned")
    snapshot = take_code(Layout.from_environment(os.environ), request.job)
    made, facts = _make_plan(replace(request, code=snapshot.digest), offline=offline)
    prediction = _predict(request, made, facts)
    travel = Travel(
        files=snapshot.files,
        bytes=snapshot.bytes,
        skipped=tuple(map(str, snapshot.skipped)),
        warnings=snapshot.warnings,
    )
    load_test = _load_test(request)
    pods = pods_planned(request)
    connections = _connections(request)
    if as_json:
        promise = unattended_text(made.budgets)
        record = {
            "plan": to_json(made),
            "travels": to_json(travel),
            "unattended": promise,
            "load_test": list(load_test),
            "prediction": to_json(prediction),
            "pods": pods,
            "connections": connections,
        }
        print_json("plan", record)
    else:
        lines = plan_lines(made, travel, load_test, prediction, pods, connections=connections)
        click.echo("\n".join(lines))
    return 0


def _connections(request: RunRequest) -> str:
    """Which stay after the run, and for how long."""
    import os

    from orchestrator.adapters.transport.kept_time import kept_seconds
    from orchestrator.core.model.inventory import TransportKind
    from orchestrator.view.tables.plan_text import kept_text

    keeping = {TransportKind.ASYNCSSH, TransportKind.OPENSSH, TransportKind.AUTO}
    nodes = sum(node.transport in keeping for node in request.cluster.workers)
    return kept_text(nodes, kept_seconds(os.environ))


def _load_test(request: RunRequest) -> tuple[str, ...]:
    """What LoadGen would do, and whether it is here; empty without it."""
    from orchestrator.adapters.loadgen.installed import missing_text
    from orchestrator.adapters.loadgen.load_plan import describe_test

    if request.load is None or request.samples is None:
        return ()
    described = describe_test(request.load, request.samples.total)
    return (*described, *filter(None, [missing_text()]))


def _predict(request: RunRequest, plan: Plan, facts: Mapping[str, Facts]) -> JobPrediction | None:
    """What the run will take; nothing is imported for workloads that declare nothing of it."""
    if not request.job.workload.is_predicted:
        return None
    import os

    from orchestrator.adapters.costs.cost_files import CostFiles
    from orchestrator.adapters.costs.predict_run import predict_plan

    return predict_plan(CostFiles.from_environment(os.environ), request, plan, facts)


def _make_plan(request: RunRequest, *, offline: bool) -> tuple[Plan, Mapping[str, Facts]]:
    """The plan, and what the nodes were found to have."""
    from orchestrator.cli.load_request import assume_plan, makes_nodes
    from orchestrator.engine.oneshot.interruptible import run_interruptibly

    if offline or makes_nodes(request):
        return assume_plan(request), {}
    return run_interruptibly(_preview(request))


async def _preview(request: RunRequest) -> tuple[Plan, Mapping[str, Facts]]:
    """What a prediction needs is imported while the nodes are asked."""
    import asyncio
    from importlib import import_module

    from orchestrator.engine.oneshot.plan_only import preview

    workload = request.job.workload
    predicting = PREDICTING_INFERENCE if workload.inference else PREDICTING_TRAINING
    ahead = asyncio.to_thread(import_module, predicting) if workload.is_predicted else None
    made = preview(request)
    return (await asyncio.gather(made, ahead))[0] if ahead else await made
