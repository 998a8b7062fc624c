"""``orchestrate model``: studies on paper, and the cost model that predicts runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.commands.planning.model_fits import accuracy, advise, calibrate, cost_files
from orchestrator.cli.options.shared import json_option
from orchestrator.core.base.errors import OrchestrateError, UsageError

if TYPE_CHECKING:
    from orchestrator.core.costs.study.study_model import Outcome

LOGGER = "orchestrate.model"
SHOWN_SENSITIVITIES = 3


@click.group()
def model() -> None:
    """Predict before renting: studies, calibration, accuracy, advice."""


model.add_command(calibrate)
model.add_command(accuracy)
model.add_command(advise)


@model.command("list")
@json_option
def list_studies(as_json: bool) -> None:
    """List the studies that a name reaches: project, then home, then bundled."""
    from orchestrator.cli.output import print_json, print_table

    files = cost_files()
    rows = []
    for entry in files.studies():
        try:
            title, error = files.study(str(entry.path)).title, None
        except OrchestrateError as refused:
            title, error = f"invalid: {refused.what.splitlines()[0]}", str(refused)
        record = {"name": entry.name, "origin": entry.origin, "path": str(entry.path)}
        rows.append({**record, "title": title, "error": error})
    if as_json:
        for row in rows:
            print_json("study", row)
        return
    headings = ("name", "origin", "title")
    print_table(headings, [[str(row[heading]) for heading in headings] for row in rows])


@model.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the inputs of study NAME, each with its value as it is used."""
    from orchestrator.adapters.costs.study_files import input_lines
    from orchestrator.cli.output import plain_data, print_json

    study = cost_files().study(name)
    if as_json:
        print_json("study", plain_data(study))
        return
    for line in input_lines(study):
        click.echo(line)


@model.command()
@click.argument("name")
def new(name: str) -> None:
    """Write studies/NAME.yaml in this folder, a copy of moe-scaling to change."""
    path = Path("studies") / f"{name}.yaml"
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"{name!r} cannot be a study's name",
            id="model.name",
            remedy="letters, digits, - and _",
        )
    text = cost_files().catalog.find_file("studies", "study", "moe-scaling").read_bytes()
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as file:
            file.write(text)
    except FileExistsError:
        remedy = "choose another name, or change that file"
        raise UsageError(
            "it exists already", id="model.exists", where=path, remedy=remedy
        ) from None
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise UsageError(what, id="model.unwritable", where=path) from error
    click.echo(f"wrote {path}; orchestrate model run {name}")


@model.command()
@click.argument("name")
@click.option("--out", metavar="DIR", help="For all files. [default: NAME-results]")
@click.option("--no-figures", is_flag=True, help="Tables and texts alone.")
@click.option("--debug", is_flag=True, help="Log every step on stderr.")
@json_option
def run(name: str, out: str | None, no_figures: bool, debug: bool, as_json: bool) -> int:
    """Compute study NAME: tables, figures as PDF and PNG, summaries, a log. Needs no GPU."""
    from orchestrator.adapters.costs.study_figures import draw_figures, require_matplotlib
    from orchestrator.adapters.costs.study_files import outcome_record, write_tables
    from orchestrator.cli.output import print_json
    from orchestrator.core.costs.study.study_checks import run_study

    began = time.monotonic()
    study = cost_files().study(name)
    if not no_figures:
        require_matplotlib()
    folder = Path(out or f"{study.name}-results")
    with _logged(folder, debug=debug):
        _say(f"{study.name}: {len(study.systems)} systems, {len(study.runtimes)} runtimes")
        outcome = run_study(study)
        _say(f"{len(outcome.rows)} rows, {len(outcome.sensitivities)} sensitivities computed")
        written = write_tables(outcome, folder)
        _say(f"{len(written)} tables and texts written to {folder}")
        if not no_figures:
            written += draw_figures(outcome, folder, _say)
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        files = [str(path) for path in written]
        print_json("result", {**outcome_record(outcome), "files": files, "seconds": seconds})
    else:
        _print_outcome(outcome, folder)
    return 0


def _say(text: str) -> None:
    logging.getLogger(LOGGER).info(text)


@contextmanager
def _logged(folder: Path, *, debug: bool) -> Iterator[None]:
    """Progress on stderr, and all of it in ``run.log`` of the folder."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.DEBUG if debug else logging.INFO)
    handlers: list[logging.Handler] = [shown]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "run.log", mode="w", encoding="utf-8"))
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        remedy = "--out DIR names another folder"
        raise UsageError(what, id="model.unwritable", where=folder, remedy=remedy) from error
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    shown.setFormatter(logging.Formatter("%(message)s"))
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _print_outcome(outcome: Outcome, folder: Path) -> None:
    """What people want first: the table, what cannot be, what was expected, what matters."""
    from orchestrator.adapters.costs.study_files import check_text, row_cells
    from orchestrator.cli.output import print_table

    click.echo("predicted, not measured")
    print_table(
        ("system", "strategy", "runtime", "tok/s", "comm.", "efficiency", "USD/1M", "saved/y"),
        [(*row_cells(row), f"{row.yearly_savings:,.0f}") for row in outcome.rows],
    )
    cannot = (f"{each.system}: {each.text}" for each in outcome.violations)
    _print_list("the hardware cannot do this", cannot)
    checks = (f"{check.band.system}: {check_text(check)}" for check in outcome.checks)
    _print_list("expected, and what came", checks)
    _print_list("what moves the result most", _moved_most(outcome))
    click.echo(f"\nall files: {folder}")


def _moved_most(outcome: Outcome) -> Iterator[str]:
    """The first inputs of each system."""
    from orchestrator.adapters.costs.study_files import sensitivity_text

    for system in outcome.study.systems:
        own = (each for each in outcome.sensitivities if each.system == system.name)
        for each in islice(own, SHOWN_SENSITIVITIES):
            yield f"{system.name}: {sensitivity_text(each)}"


def _print_list(title: str, lines: Iterator[str]) -> None:
    body = list(lines)
    if body:
        click.echo(f"\n{title}")
        for line in body:
            click.echo(f"  {line}")
