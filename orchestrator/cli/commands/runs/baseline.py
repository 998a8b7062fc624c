"""``orchestrate baseline``: runs that others are compared with, under a name."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import json_option

if TYPE_CHECKING:
    from orchestrator.adapters.history.baselines import Baseline
    from orchestrator.adapters.history.store import HistoryStore


@click.group()
def baseline() -> None:
    """Set, show and move the baselines that runs are compared with."""


@baseline.command("set")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--name", metavar="NAME", help="Instead of WORKLOAD@CLUSTER.")
@click.option("--replace", is_flag=True, help="Also where a baseline of this name exists.")
@json_option
def set_baseline(runs: tuple[str, ...], name: str | None, replace: bool, as_json: bool) -> None:
    """Keep a copy of RUN, or of several alike, as a baseline. It outlives the runs."""
    from orchestrator.adapters.history.baselines import Baseline
    from orchestrator.adapters.history.choose_runs import choose_run

    store = _store()
    records = tuple(choose_run(store, run) for run in runs)
    _require_comparable([(run.run_id, run.status.value, run.key.digest) for run in records])
    default = re.sub(r"[^A-Za-z0-9._@-]+", "-", f"{records[0].workload}@{records[0].cluster}")
    made = Baseline(
        name=_checked_name(name or default.strip("-")[:100]), set_at=time.time(), runs=records
    )
    _save(store, made, replace=replace)
    _print([made], as_json=as_json)


@baseline.command("list")
@json_option
def list_baselines(as_json: bool) -> None:
    """List all baselines."""
    from orchestrator.adapters.history.baselines import load_baselines

    _print(list(load_baselines(_store()).values()), as_json=as_json)


@baseline.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the conditions and the figures of baseline NAME."""
    from statistics import median

    from orchestrator.adapters.history.baselines import baseline_to_mapping
    from orchestrator.cli.output import print_json, print_table
    from orchestrator.core.base.figures import format_figure

    found = _find(_store(), name)
    if as_json:
        print_json("baseline", baseline_to_mapping(found))
        return
    _print([found], as_json=False)
    click.echo()
    conditions = found.runs[0].key.as_mapping().items()
    print_table(("condition", "value"), [(part, value or "unknown") for part, value in conditions])
    click.echo()
    rows = []
    for metric, item in found.runs[0].figures.items():
        figures = [run.figures[metric] for run in found.runs if metric in run.figures]
        values = [one.value for one in figures if one.value is not None]
        rows.append((metric, format_figure(median(values), item.unit) if values else "missing"))
    print_table(("figure", "value"), rows)


@baseline.command()
@click.argument("name")
@click.option("--out", metavar="FILE", help="Instead of stdout.")
def export(name: str, out: str | None) -> None:
    """Write baseline NAME as a JSON file, for version control or another machine."""
    from orchestrator.adapters.history.baselines import render_baseline
    from orchestrator.adapters.store.atomic_files import write_atomic

    text = render_baseline(_find(_store(), name))
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomic(Path(out), text.encode())


@baseline.command("import")
@click.argument("file", metavar="FILE")
@click.option("--name", metavar="NAME", help="Instead of the name in the file.")
@click.option("--replace", is_flag=True, help="Also where a baseline of this name exists.")
@json_option
def import_baseline(file: str, name: str | None, replace: bool, as_json: bool) -> None:
    """Set a baseline from FILE, as export wrote it."""
    from orchestrator.adapters.catalog.catalog import read_bounded
    from orchestrator.adapters.history.baselines import Baseline
    from orchestrator.parsing.inputs.baseline_file import load_baseline

    own_name, set_at, runs = load_baseline(read_bounded(Path(file)), file)
    made = Baseline(name=_checked_name(name or own_name), set_at=set_at, runs=runs)
    _save(_store(), made, replace=replace)
    _print([made], as_json=as_json)


@baseline.command()
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove baseline NAME. The runs that it was made of stay in the history."""
    from orchestrator.adapters.history.baselines import remove_baseline
    from orchestrator.cli.output import print_json
    from orchestrator.core.base.errors import UsageError

    store = _store()
    try:
        held = _run_names(_find(store, name))
    except UsageError as error:
        if error.id != "OR-STORE-004" or name not in store.read_baselines():
            raise
        held = "what could not be read"
    remove_baseline(store, name)
    if as_json:
        print_json("result", {"removed": name})
    else:
        click.echo(f"{name}: removed; it held {held}")


def _store() -> HistoryStore:
    from orchestrator.adapters.history.open_store import open_history
    from orchestrator.adapters.store.layout import Layout

    return open_history(Layout.from_environment(os.environ))


def _save(store: HistoryStore, made: Baseline, *, replace: bool) -> None:
    """Set it; one of its name is replaced only if that was asked for, and then it is said."""
    from orchestrator.adapters.history.baselines import load_baselines, save_baseline
    from orchestrator.core.base.errors import UsageError

    if made.name == "last" or any(run.run_id == made.name for run in store.find_runs(made.name)):
        # A baseline wins where a side of a comparison is named: the run would be out of reach.
        what = f"{made.name} names a run already"
        remedy = "give the baseline another name: --name NAME"
        raise UsageError(what, id="usage.baseline", where=store.where, remedy=remedy)
    old = load_baselines(store).get(made.name)
    if old is not None and not replace:
        raise UsageError(
            f"baseline {made.name} exists, with {_run_names(old)}",
            id="OR-STORE-018",
            where=store.where,
            remedy="--replace replaces it, --name NAME gives the new one another name",
        )
    save_baseline(store, made)
    if old is not None:
        click.echo(f"baseline {made.name} replaced; it held {_run_names(old)}", err=True)


def _run_names(baseline: Baseline) -> str:
    """The runs of it; of many the first ones."""
    names = [run.run_id for run in baseline.runs]
    return ", ".join(names[:3]) + (", ..." if names[3:] else "")


def _find(store: HistoryStore, name: str) -> Baseline:
    from orchestrator.adapters.history.baselines import load_baselines
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.base.suggest import did_you_mean

    known = load_baselines(store)
    if name not in known:
        what = f"no baseline is called {name!r}"
        remedy = did_you_mean(name, known) if known else "orchestrate baseline set RUN"
        raise UsageError(what, id="OR-STORE-016", where=store.where, remedy=remedy)
    return known[name]


def _checked_name(name: str) -> str:
    from orchestrator.core.base.errors import UsageError

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", name):
        what = f"{name!r} is not the name of a baseline"
        remedy = "letters, digits and . _ @ -, at most 100, a letter or digit first"
        raise UsageError(what, id="usage.baseline", remedy=remedy)
    return name


def _require_comparable(runs: list[tuple[str, str, str]]) -> None:
    """Runs that all succeeded and are alike; others would make every comparison invalid."""
    from orchestrator.core.base.errors import UsageError

    for run_id, status, digest in runs:
        if status != "succeeded":
            what = f"run {run_id} is {status}: not a baseline"
            raise UsageError(what, id="usage.baseline", remedy="name a run that succeeded")
        if digest != runs[0][2]:
            what = f"runs {runs[0][0]} and {run_id} are not alike"
            remedy = f"orchestrate compare {runs[0][0]} {run_id} shows in what they differ"
            raise UsageError(what, id="usage.baseline", remedy=remedy)


def _print(baselines: list[Baseline], *, as_json: bool) -> None:
    from datetime import datetime

    from orchestrator.adapters.history.baselines import baseline_to_mapping
    from orchestrator.cli.output import print_json, print_table

    if as_json:
        for made in baselines:
            print_json("baseline", baseline_to_mapping(made))
        return
    rows = [
        (
            made.name,
            f"{datetime.fromtimestamp(made.set_at).astimezone():%Y-%m-%d %H:%M}",
            made.runs[0].cluster,
            made.runs[0].workload,
            _run_names(made),
        )
        for made in baselines
    ]
    print_table(("baseline", "set", "cluster", "workload", "runs"), rows)
