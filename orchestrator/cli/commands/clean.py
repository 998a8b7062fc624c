"""``orchestrate clean``: which runs, and their removal here and on the nodes."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import Liveness, liveness, read_identity
from orchestrator.adapters.store.run_list import find_run
from orchestrator.core.base.errors import BusyError, ExitCode, UsageError
from orchestrator.view.terminal.text import brief_text

if TYPE_CHECKING:
    from orchestrator.engine.oneshot.cleanup import NodeVisit

DAY_S = 86_400.0


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

    visits = asyncio.run(clean_run(folder))
    for visit in visits:
        click.echo(f"{folder.run_id}: {visit.node}: {brief_text(visit.detail, 400)}", err=True)
    return [visit for visit in visits if not visit.done]
