"""``orchestrate run``: a workload or a script of one's own, from inventory to verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.job_options import JobOptions, job_options, pick_job
from orchestrator.cli.options.shared import FiniteRange, pick_options
from orchestrator.cli.options.view_options import ViewOptions, view_options

MAX_WAIT_S = 366 * 86400

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.sync.code_snapshot import Snapshot
    from orchestrator.core.model.request import RunRequest


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@view_options
@click.option("--run-id", metavar="ID", help="Instead of a generated one.")
@click.option(
    "--fail-on",
    type=click.Choice(["degraded"]),
    help="Exit 3, not 0, after a run that used a fallback or lost a node.",
)
@click.option(
    "-d",
    "--detach",
    is_flag=True,
    help="Return once the ranks run; the run continues in the background (see attach).",
)
@click.option(
    "--wait",
    is_flag=False,
    flag_value=str(MAX_WAIT_S),
    type=FiniteRange(0, MAX_WAIT_S),
    metavar="[SECONDS]",
    help="Queue while another run holds GPUs or machines that this one needs.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCRIPT ARGS...]")
def run(
    words: tuple[str, ...],
    run_id: str | None,
    fail_on: str | None,
    detach: bool,
    wait: float | None,
    **given: Any,
) -> int:
    """Run a workload, or a script of your own, on the nodes of a cluster.

    \b
    orchestrate run --cluster local --workload finetune --set preset=tiny
    orchestrate run --cluster lab -- train.py --lr 1e-4
    """
    import os
    import secrets
    from dataclasses import replace

    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.commands.runs.resume import save_request
    from orchestrator.cli.coordinate import begin_run, create_run
    from orchestrator.cli.detach import as_foreground, run_detached
    from orchestrator.engine.support.context import RunContext

    options, view = pick_job(given), pick_options(ViewOptions, given)
    if view.follow is None:
        view = replace(view, follow=bool(words) and not (view.as_json or view.quiet or detach))
    if detach:
        options = as_foreground(options)
    layout = Layout.from_environment(os.environ)
    chosen = _choose_run_id(layout, run_id, options, words)
    request, snapshot = _load_run(layout, options, words, chosen)
    request = replace(
        request,
        token=secrets.token_hex(8),
        fail_on_degraded=fail_on == "degraded",
        wait_s=wait,
    )
    folder = layout.run(chosen)
    context = RunContext(request=request, snapshot=snapshot, folder=folder, observers=[])

    def make() -> None:
        create_run(folder, request, lambda staged: save_request(staged, options, words, snapshot))

    return (run_detached if detach else begin_run)(layout, context, view, make)


def _choose_run_id(
    layout: Layout, wanted: str | None, options: JobOptions, words: tuple[str, ...]
) -> str:
    import random
    from datetime import datetime
    from pathlib import PurePath

    from orchestrator.adapters.store.layout import valid_run_id
    from orchestrator.adapters.store.run_list import new_run_id
    from orchestrator.core.base.errors import UsageError
    from orchestrator.parsing.inputs.workloads.command_line import job_name

    if wanted is None:
        given = PurePath(options.workload).stem if options.workload else ""
        name = given or (job_name(words) if words and words[0] else "run")
        return new_run_id(datetime.now().astimezone(), name, random.SystemRandom())
    if not valid_run_id(wanted):
        what = f"not a run id: {wanted!r}"
        raise UsageError(what, id="run.id", remedy="use letters, digits, '.', '_' and '-'")
    if layout.run(wanted).path.exists():
        what = f"run {wanted} exists"
        raise UsageError(what, id="run.id", remedy=f"orchestrate show {wanted}, or another id")
    return wanted


def _load_run(
    layout: Layout, options: JobOptions, words: tuple[str, ...], run_id: str
) -> tuple[RunRequest, Snapshot]:
    from dataclasses import replace
    from pathlib import Path

    from orchestrator.adapters.sync.git_head import head_commit
    from orchestrator.adapters.transport.broker.find_broker import expect_connections
    from orchestrator.cli.load_request import load_request, require_load_generator, take_code
    from orchestrator.view.terminal.text import brief_text

    request = load_request(options, words, run_id=run_id)
    require_load_generator(request)
    expect_connections(request.cluster.workers)
    snapshot = take_code(layout, request.job)
    for warning in snapshot.warnings:
        click.echo(f"warning: {brief_text(warning, 300)}", err=True)
    commit = head_commit(Path(request.job.workload.folder))
    return replace(request, code=snapshot.digest, commit=commit), snapshot
