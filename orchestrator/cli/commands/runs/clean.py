"""``orchestrate clean``: runs, here and on their nodes, and what nodes keep for later runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import Liveness, liveness, read_identity
from orchestrator.adapters.store.run_list import find_run
from orchestrator.cli.options.shared import FiniteRange, any_cluster_options
from orchestrator.core.base.errors import BusyError, ExitCode, UsageError
from orchestrator.view.terminal.text import brief_text

if TYPE_CHECKING:
    from orchestrator.engine.oneshot.clean_caches import NodeCaches
    from orchestrator.engine.oneshot.cleanup import NodeVisit

DAY_S = 86_400.0
UNUSED_DAYS = 7.0


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--all", "every", is_flag=True, help="All finished and unattended runs.")
@click.option(
    "--older-than",
    type=FiniteRange(0),
    metavar="DAYS",
    help=f"With --all: only older ones. With --caches: unused for so long [{UNUSED_DAYS:g}].",
)
@click.option("--local", is_flag=True, help="Only this side; leave the nodes alone.")
@click.option("--discard", is_flag=True, help="Also outputs that exist on a node alone.")
@click.option(
    "--caches",
    is_flag=True,
    help="Instead of runs: code, environments and agents that the nodes of --cluster keep.",
)
@click.option("--dry-run", is_flag=True, help="With --caches: show what it would free.")
@any_cluster_options
def clean(
    run: str | None,
    cluster: str | None,
    nodes: str,
    older_than: float | None,
    *,
    every: bool,
    local: bool,
    discard: bool,
    caches: bool,
    dry_run: bool,
) -> int:
    """Remove the folders of runs, here and on their nodes; or caches on the nodes of a cluster.

    A run whose outputs did not all come from its nodes stays, unless --discard is given: exit 75.
    Caches that a run uses, or that were used in the last ten minutes, stay.
    """
    if caches:
        _refuse_with_caches({"RUN": run, "--all": every, "--local": local, "--discard": discard})
        if cluster is None:
            raise click.UsageError("Missing option '-C' / '--cluster'.")
        days = UNUSED_DAYS if older_than is None else older_than
        return _clean_caches(cluster, nodes, days * DAY_S, dry_run=dry_run)
    if dry_run:
        raise UsageError("--dry-run goes with --caches", id="clean.what")
    layout = Layout.from_environment(os.environ)
    folders = select_runs(layout, run, every=every, older_than_days=older_than)
    return clean_runs(folders, local=local, discard=discard)


def select_runs(
    layout: Layout, run: str | None, *, every: bool, older_than_days: float | None
) -> list[RunFolder]:
    """The runs to remove, never one that may still go on. Raises ``UsageError``, ``BusyError``."""
    if (run is None) == (not every):
        what = "name a run, or give --all"
        raise UsageError(what, id="clean.what", remedy="orchestrate ps lists runs")
    if run is not None:
        if older_than_days is not None:
            raise UsageError("--older-than goes with --all", id="clean.what")
        folder = find_run(layout, run)
        if may_go_on(folder):
            remedy = f"orchestrate stop {folder.run_id}"
            what = f"run {folder.run_id} is still running"
            raise BusyError(what, id="OR-CLEAN-001", remedy=remedy)
        return [folder]
    before = time.time() - (older_than_days or 0.0) * DAY_S
    folders = [layout.run(run_id) for run_id in layout.run_ids()]
    return [f for f in folders if not may_go_on(f) and f.path.stat().st_mtime <= before]


def may_go_on(folder: RunFolder) -> bool:
    """No result, and the coordinator is not known to be dead."""
    if folder.result.exists():
        return False
    return liveness(read_identity(folder.coordinator)) is not Liveness.DEAD


def clean_runs(folders: Sequence[RunFolder], *, local: bool, discard: bool) -> int:
    """Nodes first: a run whose nodes could not be cleaned keeps its folder here.

    Outputs that exist on a node alone are removed only with ``discard``. Exit 0, 4, or 75.
    """
    code = ExitCode.DONE
    for folder in folders:
        if not local and not discard and _keeps_outputs(folder):
            code = ExitCode.BUSY if code is ExitCode.DONE else code
            continue
        left = [] if local else _not_cleaned(folder)
        if left:
            code = ExitCode.PREFLIGHT
            click.echo(f"  next: {_remedy_text(folder.run_id, left)}", err=True)
            continue
        shutil.rmtree(folder.path)
        click.echo(f"removed {folder.run_id}", err=True)
    return int(code)


def _keeps_outputs(folder: RunFolder) -> bool:
    from orchestrator.engine.oneshot.cleanup import kept_on_nodes

    kept = kept_on_nodes(folder)
    for line in kept:
        click.echo(f"{folder.run_id}: {brief_text(line, 400)}", err=True)
    if kept:
        copy = f"copy them from node/runs/{folder.run_id} in the nodes' workdir if they are needed"
        click.echo(f"  next: {copy}; orchestrate clean {folder.run_id} --discard", err=True)
    return bool(kept)


def _remedy_text(run_id: str, left: Sequence[NodeVisit]) -> str:
    """Ranks that still run are stopped first; only nodes that do not answer can be let go."""
    if any(visit.answered for visit in left):
        return f"orchestrate stop {run_id}, then orchestrate clean {run_id} again"
    return f"orchestrate clean {run_id} --local removes only this side, if its nodes are gone"


def _not_cleaned(folder: RunFolder) -> list[NodeVisit]:
    from orchestrator.engine.oneshot.cleanup import clean_run
    from orchestrator.engine.oneshot.interruptible import run_interruptibly

    visits = run_interruptibly(clean_run(folder))
    for visit in visits:
        click.echo(f"{folder.run_id}: {visit.node}: {brief_text(visit.detail, 400)}", err=True)
    return [visit for visit in visits if not visit.done]


def _refuse_with_caches(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"--caches and {name} do not go together", id="clean.what")


def _clean_caches(cluster: str, nodes: str, older_than_s: float, *, dry_run: bool) -> int:
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.model.plan import Budgets
    from orchestrator.engine.oneshot.clean_caches import clean_caches
    from orchestrator.engine.oneshot.interruptible import run_interruptibly

    workers = load_cluster(cluster, nodes).workers
    answers = run_interruptibly(
        clean_caches(workers, Budgets(), older_than_s=older_than_s, dry_run=dry_run)
    )
    _show_caches(answers, "would free" if dry_run else "freed")
    for answer in answers:
        if answer.error is not None:
            click.echo(f"orchestrate: {answer.node}: {brief_text(answer.error, 400)}", err=True)
    return int(ExitCode.PREFLIGHT if any(a.error for a in answers) else ExitCode.DONE)


def _show_caches(answers: Sequence[NodeCaches], freed: str) -> None:
    from orchestrator.cli.output import print_table
    from orchestrator.core.base.figures import format_figure

    asked = [answer for answer in answers if answer.error is None]
    if asked:
        kinds = list(asked[0].caches)
        rows = [
            (a.node, *(str(a.caches[k].entries) for k in kinds), format_figure(a.bytes, "bytes"))
            for a in asked
        ]
        print_table(("node", *kinds, freed), rows)
