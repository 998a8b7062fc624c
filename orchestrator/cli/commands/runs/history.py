"""``orchestrate history``: past runs with their trend; export, import and pruning."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import FiniteRange, json_option
from orchestrator.core.base.suggest import did_you_mean

if TYPE_CHECKING:
    from orchestrator.adapters.history.store import HistoryStore
    from orchestrator.core.history.run_record import FigureSeries, RunQuery, RunRecord
    from orchestrator.view.tables.history_table import HistoryRow

TREND_RUNS = 20
# Whose names an unknown one is compared with.
RECENT_RUNS = 200


def _selection(*, default_limit: int | None) -> list[click.Option]:
    limit = "all" if default_limit is None else str(default_limit)
    return [
        click.Option(["--workload"], metavar="NAME", help="Only runs of this workload."),
        click.Option(["--cluster"], metavar="NAME", help="Only runs on this cluster."),
        click.Option(["--metric"], metavar="NAME", help="Only runs with this figure; its trend."),
        click.Option(["--since"], metavar="TIME", help="Such as 12h, 7d, 2w or 2026-11-01."),
        click.Option(
            ["-n", "--limit"],
            type=click.IntRange(1, 10_000_000),
            default=default_limit,
            help=f"The latest ones. [default: {limit}]",
        ),
    ]


@click.group(invoke_without_command=True, params=_selection(default_limit=20))
@json_option
@click.pass_context
def history(
    context: click.Context,
    *,
    workload: str | None,
    cluster: str | None,
    metric: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List past runs, newest last, with the trend of a figure among runs that are alike."""
    if context.invoked_subcommand is not None:
        return
    from orchestrator.adapters.history.stored_run import record_to_mapping
    from orchestrator.cli.output import print_json, print_table
    from orchestrator.view.tables.history_table import HEADINGS, history_cells

    store = _open()
    query = _query(workload, cluster, metric, since, limit)
    runs = store.read_runs(query)[::-1]
    if not runs:
        click.echo(_nothing_text(store, query), err=True)
    if as_json:
        for run in runs:
            print_json("run", record_to_mapping(run))
        return
    if runs:
        print_table(HEADINGS, [history_cells(row) for row in _with_trends(store, runs, metric)])


@history.command(params=_selection(default_limit=None))
@click.option("--format", type=click.Choice(["csv", "jsonl", "parquet"]), default="jsonl")
@click.option("--out", metavar="FILE", help="Instead of stdout.")
def export(
    *,
    workload: str | None,
    cluster: str | None,
    metric: str | None,
    since: str | None,
    limit: int | None,
    format: str,
    out: str | None,
) -> None:
    """Write runs with their figures, newest first: jsonl has a line a run, csv and parquet a line
    a figure.
    """
    from orchestrator.adapters.history.export_runs import export_runs

    query = _query(workload, cluster, metric, since, limit or 1 << 62)
    count = export_runs(_open().iterate_runs(query), format, Path(out) if out else None)
    click.echo(f"{count} runs exported", err=True)


@history.command("import")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1)
@json_option
def import_runs(folders: tuple[str, ...], as_json: bool) -> int:
    """Read finished runs from their folders into the history: all of this home, or FOLDERs (of
    runs, or with runs in them). What is there already is read anew.
    """
    from orchestrator.adapters.history.import_runs import import_folders, run_folders
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.output import print_json

    layout = Layout.from_environment(os.environ)
    paths = [Path(folder) for folder in folders] or [layout.runs]
    outcome = import_folders(_open(), run_folders(paths, required=bool(folders)))
    for path, why in outcome.skipped:
        click.echo(f"skipped {path}: {why}", err=True)
    if as_json:
        skipped = [{"folder": str(path), "reason": why} for path, why in outcome.skipped]
        print_json("result", {"imported": outcome.imported, "skipped": skipped})
    else:
        click.echo(f"{outcome.imported} runs imported, {len(outcome.skipped)} skipped")
    return 0


@history.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
def mlflow(runs: tuple[str, ...]) -> None:
    """Log each RUN to the MLflow tracking store that ORCHESTRATE_MLFLOW names. With the variable
    set, every run that finishes is logged by itself.
    """
    from orchestrator.adapters.history.choose_runs import choose_run
    from orchestrator.adapters.history.mlflow_store import VARIABLE, MlflowStore, shown_uri
    from orchestrator.adapters.history.run_entry import read_settings
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.core.base.errors import UsageError

    uri = os.environ.get(VARIABLE, "")
    if not uri:
        remedy = f"{VARIABLE}=https://HOST, or sqlite:///FILE"
        raise UsageError("no tracking store is named", id="usage.mlflow", remedy=remedy)
    layout, store = Layout.from_environment(os.environ), _open()
    chosen = [choose_run(store, run) for run in runs]
    tracking = MlflowStore(uri)
    for run in chosen:
        settings = read_settings(layout.run(run.run_id))
        number = tracking.log_run(run, settings, store.read_curves(run.run_id))
        click.echo(f"{run.run_id}: logged to {shown_uri(uri)} as {number}")


@history.command()
@click.option("--older-than", type=FiniteRange(0), required=True, metavar="DAYS")
@click.option("--keep", type=click.IntRange(0), default=0, help="The latest of each kind stay.")
@click.option("--dry-run", is_flag=True, help="Only show which.")
@json_option
def prune(older_than: float, keep: int, dry_run: bool, as_json: bool) -> None:
    """Forget runs that are older, except those that a baseline names. Folders stay."""
    from orchestrator.adapters.history.pruning import runs_to_forget
    from orchestrator.cli.output import print_json

    store = _open()
    doomed = runs_to_forget(store, before=time.time() - older_than * 86_400, keep=keep)
    if not dry_run:
        store.remove_runs(doomed)
    if as_json:
        print_json("result", {"removed": doomed, "dry_run": dry_run})
        return
    for run_id in doomed:
        click.echo(run_id)
    click.echo(f"{len(doomed)} runs {'would be ' if dry_run else ''}removed", err=True)


def _open() -> HistoryStore:
    from orchestrator.adapters.history.open_store import open_history
    from orchestrator.adapters.store.layout import Layout

    return open_history(Layout.from_environment(os.environ))


def _query(
    workload: str | None, cluster: str | None, metric: str | None, since: str | None, limit: int
) -> RunQuery:
    from orchestrator.core.history.run_record import RunQuery
    from orchestrator.parsing.inputs.past_time import parse_past_time

    return RunQuery(
        workload=workload,
        cluster=cluster,
        metric=metric,
        since=None if since is None else parse_past_time(since, time.time()),
        limit=limit,
    )


def _nothing_text(store: HistoryStore, query: RunQuery) -> str:
    """Why no run was listed: which of the names no recent run has, with the nearest one."""
    from orchestrator.core.history.run_record import RunQuery

    recent = store.read_runs(RunQuery(limit=RECENT_RUNS))
    if not recent:
        return f"no runs in {store.where}"
    known = {
        "workload": (query.workload, {run.workload for run in recent}),
        "cluster": (query.cluster, {run.cluster for run in recent}),
        "metric": (query.metric, {name for run in recent for name in run.figures}),
    }
    unknown = [
        f"none has the {what} {name!r}: {did_you_mean(name, names)}"
        for what, (name, names) in known.items()
        if name is not None and name not in names
    ]
    return "; ".join([f"no runs like that in {store.where}", *unknown])


def _with_trends(
    store: HistoryStore, runs: tuple[RunRecord, ...], metric: str | None
) -> list[HistoryRow]:
    """Each run with the figure's values up to it among runs of its key."""
    from orchestrator.view.tables.history_table import HistoryRow, main_metric

    series: dict[tuple[str, str], FigureSeries] = {}
    rows = []
    for run in runs:
        name = metric or main_metric(run)
        trend: tuple[float, ...] = ()
        if name is not None:
            place = (run.key.digest, name)
            if place not in series:
                series[place] = store.read_series(run.key, name, len(runs) + TREND_RUNS)
            trend = _values_until(series[place], run)
        rows.append(HistoryRow(run, name, trend))
    return rows


def _values_until(series: FigureSeries, run: RunRecord) -> tuple[float, ...]:
    values = [
        point.value
        for point in series.points
        if point.value is not None and point.finished <= run.finished
    ]
    return tuple(values[-TREND_RUNS:])
