"""``orchestrate model calibrate``, ``accuracy`` and ``advise``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.shared import FiniteRange, json_option
from orchestrator.core.base.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.costs.cost_files import CostFiles
    from orchestrator.core.costs.calibration import Observation
    from orchestrator.core.costs.checking import Score
    from orchestrator.core.costs.tables import Calibration, CostTables

SHOWN_SKIPPED = 10


@click.command()
@click.option(
    "--from",
    "sources",
    metavar="RUNS",
    multiple=True,
    help="Run ids, folders of runs, or a file of points (.jsonl). [default: all runs]",
)
@click.option("--dry-run", is_flag=True, help="Show the fit; keep the one that is there.")
@json_option
def calibrate(sources: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Fit the cost model to runs that were measured, for each kind of GPU among them.

    Shows each coefficient with its uncertainty, the errors when each point is predicted by the
    others, and what is missing. Points marked as held out are never fitted to: their errors are
    shown beside those of the bare roofline.
    """
    from orchestrator.adapters.costs.cost_files import write_calibration
    from orchestrator.adapters.costs.measured_points import observe
    from orchestrator.cli.output import print_json

    files = cost_files()
    tables = files.tables()
    observations, skipped = observe(files, tables, sources)
    _require(observations, skipped)
    for gpu in sorted({each.gpu for each in observations}):
        own = [each for each in observations if each.gpu == gpu]
        fitted = _fit(tables, gpu, own, sources)
        held = _held_out(tables, gpu, own, fitted)
        path = files.calibration_path(gpu)
        if not dry_run and fitted.families:
            write_calibration(path, fitted)
        if as_json:
            print_json("calibration", _record(fitted, held, str(path), skipped, dry_run=dry_run))
        else:
            _print_fit(fitted, held, "" if dry_run or not fitted.families else str(path))
    if not as_json:
        for reason in skipped[:SHOWN_SKIPPED]:
            click.echo(f"left out: {reason}", err=True)
    return 0


def _require(observations: Sequence[Observation], skipped: Sequence[str]) -> None:
    if not observations:
        why = f"; left out: {'; '.join(skipped[:3])}" if skipped else ""
        raise UsageError(
            f"nothing was measured that the cost model could be fitted to{why}",
            id="model.no-points",
            remedy="finish a fine-tune on GPUs, or --from the file of scripts/gpu_check model",
        )


def _fit(
    tables: CostTables, gpu: str, observations: Sequence[Observation], sources: Sequence[str]
) -> Calibration:
    from orchestrator.core.costs.calibration import calibrate as fit_all

    return fit_all(
        observations,
        tables.assumed,
        tables.gpus[gpu].device,
        made=datetime.now(UTC).date().isoformat(),
        source=", ".join(sources) or "all runs of the history",
    )


def _held_out(
    tables: CostTables, gpu: str, observations: Sequence[Observation], fitted: Calibration
) -> list[Score]:
    """Scores of the points that the fit did not see."""
    from orchestrator.core.costs.checking import check_points, scores
    from orchestrator.core.costs.tables import model_of

    held = [each for each in observations if each.held_out]
    model = model_of(tables.gpus[gpu].device, tables.assumed, fitted)
    return list(scores(list(check_points(held, model))))


def _record(
    fitted: Calibration, held: Sequence[Score], path: str, skipped: Sequence[str], *, dry_run: bool
) -> dict[str, Any]:
    from orchestrator.cli.output import plain_data

    return {
        **plain_data(fitted),
        "coefficients": list(_coefficients(fitted)),
        "held_out": [plain_data(score) for score in held],
        "left_out": list(skipped),
        "path": None if dry_run or not fitted.families else path,
    }


def _coefficients(fitted: Calibration) -> Iterator[dict[str, Any]]:
    """Each with the factor by which it may be off (one standard deviation)."""
    import math

    for name, family in fitted.families.items():
        for place, part in enumerate(family.names):
            off = math.exp(math.sqrt(family.covariance[place][place]))
            value = family.coefficient(part)
            yield {"family": name, "coefficient": part, "value": value, "factor": off}


def _print_fit(fitted: Calibration, held: Sequence[Score], path: str) -> None:
    from orchestrator.cli.output import print_table

    click.echo(f"{fitted.device}, from {fitted.source}")
    rows = [
        (each["family"], each["coefficient"], f"{each['value']:.3g}", f"{each['factor']:.2f}")
        for each in _coefficients(fitted)
    ]
    print_table(("figure", "coefficient", "value", "off by a factor of"), rows)
    click.echo("\neach point predicted by the others")
    errors = [
        (name, str(each.points), *map(_percent, (each.mape, each.bias, each.inside)))
        for name, each in fitted.quality.items()
    ]
    print_table(("figure", "points", "MAPE", "bias", "in the 90 % interval"), errors)
    if held:
        click.echo("\npoints that were held out")
        headings = ("figure", "points", "MAPE", "bias", "worst", "in the 90 % interval", "roofline")
        print_table(headings, [_score_row(score) for score in held])
    for line in fitted.missing:
        click.echo(f"missing: {line}")
    click.echo(f"\nwritten to {path}" if path else "\nnothing was written")


def _score_row(score: Score) -> tuple[str, ...]:
    bare = "" if score.roofline_mape is None else _percent(score.roofline_mape)
    parts = map(_percent, (score.mape, score.bias, score.worst, score.inside))
    return (score.figure, str(score.points), *parts, bare)


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


@click.command()
@click.option("--cluster", metavar="NAME", help="Only runs on this cluster.")
@click.option("--since", metavar="TIME", help="Such as 12h, 7d, 2w or 2026-11-01.")
@json_option
def accuracy(cluster: str | None, since: str | None, as_json: bool) -> int:
    """Show how good predictions were, over the runs of the history: MAPE, bias, coverage."""
    from orchestrator.cli.output import plain_data, print_json, print_table
    from orchestrator.core.verdict.prediction_scores import prediction_scores

    runs, compared = _compared(cluster, since)
    found = list(prediction_scores(compared))
    if as_json:
        print_json("accuracy", {"runs": runs, "figures": [plain_data(each) for each in found]})
        return 0
    if not found:
        click.echo("no run of the history was predicted and measured; orchestrate plan predicts")
        return 0
    click.echo(f"{runs} runs")
    rows = [
        (each.name, str(each.runs), *map(_percent, (each.mape, each.bias, each.inside)))
        for each in found
    ]
    print_table(("figure", "runs", "MAPE", "bias", "in the 90 % interval"), rows)
    return 0


def _compared(cluster: str | None, since: str | None) -> tuple[int, list[Any]]:
    """How many runs were predicted, and their figures."""
    import time

    from orchestrator.adapters.history.open_store import open_history
    from orchestrator.core.history.run_record import RunQuery
    from orchestrator.parsing.inputs.past_time import parse_past_time

    store = open_history(cost_files().layout)
    begin = None if since is None else parse_past_time(since, time.time())
    runs = 0
    compared: list[Any] = []
    for run in store.iterate_runs(RunQuery(cluster=cluster, since=begin, limit=1 << 62)):
        result = store.read_result(run.run_id)
        if result is not None and any(each.measured for each in result.predictions):
            runs += 1
            compared += result.predictions
    return runs, compared


@click.command()
@click.option("--workload", required=True, metavar="NAME", help="One that declares its training.")
@click.option("--model", "model", required=True, metavar="NAME", help="Such as qwen2-7b.")
@click.option(
    "--clusters", required=True, metavar="NAMES", help="Inventories to compare, with commas."
)
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="Parameters.")
@click.option(
    "--network-gbit",
    type=FiniteRange(0),
    default=0.0,
    help="Rate of each node's network, which inventories lack: 8 ports of NDR have 3200.",
)
@json_option
def advise(
    *,
    workload: str,
    model: str,
    clusters: str,
    settings: tuple[str, ...],
    network_gbit: float,
    as_json: bool,
) -> int:
    """Compare clusters by what a workload would take on them: time, cost, energy, memory.

    Contacts nobody: GPUs, their number and prices are those of the inventories.
    """
    from orchestrator.adapters.costs.advice import compare_clusters
    from orchestrator.cli.output import plain_data, print_json, print_table

    names = [name for name in clusters.split(",") if name]
    found = compare_clusters(
        cost_files(), workload, model, names, settings=settings, node_gbit=network_gbit
    )
    if as_json:
        print_json("advice", {"clusters": [plain_data(each) for each in found]})
        return 0
    print_table(
        ("cluster", "GPUs", "time", "tok/s", "peak memory", "energy", "cost"),
        [_advice_row(each.cluster, each.gpus, each.prediction.figures) for each in found],
    )
    for each in found:
        if each.prediction.without:
            click.echo(f"{each.cluster}: nothing is predicted: {each.prediction.without}")
        else:
            click.echo(f"{each.cluster}: {each.prediction.basis}")
    return 0


def _advice_row(cluster: str, gpus: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    from orchestrator.adapters.report.prediction_text import interval_text

    def told(name: str) -> str:
        each = figures.get(name)
        return "" if each is None else interval_text(each.value, each.low, each.high, each.unit)

    names = ("training_s", "tokens_per_s", "peak_memory_bytes", "energy", "cost")
    return (cluster, gpus, *map(told, names))


def cost_files() -> CostFiles:
    """Those of this folder, the user's and bundled ones."""
    from orchestrator.adapters.costs.cost_files import CostFiles

    return CostFiles.from_environment(os.environ)
