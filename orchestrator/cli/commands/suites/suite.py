"""``orchestrate suite``: runs of workloads that are evidence together, and their archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.shared import (
    any_cluster_options,
    cluster_options,
    color_option,
    json_option,
)

if TYPE_CHECKING:
    from orchestrator.core.suite.suite_model import Suite


@click.group()
def suite() -> None:
    """Run a list of workloads, archive the evidence, and publish it.

    \b
    orchestrate suite run smoke --cluster local
    orchestrate suite run b200x8 --cluster b200x8 --archive-to ~/evidence
    """


@suite.command("list")
@json_option
def list_suites(as_json: bool) -> None:
    """List the suites that a name reaches: project, then home, then bundled."""
    from orchestrator.adapters.catalog.catalog import Catalog
    from orchestrator.cli.output import print_json, print_table
    from orchestrator.core.base.errors import OrchestrateError

    catalog = Catalog.from_environment(os.environ)
    rows = []
    for entry in catalog.suites():
        try:
            found = catalog.read_suite(entry.path)
            steps, summary, error = len(found.steps), found.summary, None
        except OrchestrateError as refused:
            steps, summary, error = 0, f"invalid: {refused.what.splitlines()[0]}", str(refused)
        record = {"name": entry.name, "origin": entry.origin, "path": str(entry.path)}
        rows.append({**record, "steps": steps, "summary": summary, "error": error})
    if as_json:
        for row in rows:
            print_json("suite", row)
        return
    headings = ("name", "origin", "steps", "summary")
    print_table(headings, [[str(row[heading]) for heading in headings] for row in rows])


@suite.command()
@click.argument("name", metavar="NAME|FILE")
@any_cluster_options
@json_option
def show(name: str, cluster: str | None, nodes: str, as_json: bool) -> None:
    """Show the steps of suite NAME; with --cluster, which of them would not run there, and why.

    With --cluster every node is asked once what it has; nothing is started.
    """
    from orchestrator.adapters.catalog.catalog import Catalog
    from orchestrator.cli.output import plain_data, print_json, print_table

    catalog = Catalog.from_environment(os.environ)
    found = catalog.read_suite(catalog.find_suite(name))
    blocked: dict[str, str] | None = None
    if cluster is not None:
        from orchestrator.cli.suites.step_requests import survey_suite

        blocked = dict(survey_suite(found, cluster, nodes, ()).blocked)
    if as_json:
        print_json("suite", {**plain_data(found), "blocked": blocked})
        return
    click.echo(f"{found.name}: {found.summary}" if found.summary else found.name)
    headings = ("step", "workload", "", "after", "settings", "captures", "there")
    shown = headings if blocked is not None else headings[:-1]
    print_table(shown, [row[: len(shown)] for row in _step_rows(found, blocked or {})])


def _step_rows(found: Suite, blocked: dict[str, str]) -> list[list[str]]:
    from orchestrator.core.suite.suite_model import ordered_steps

    return [
        [
            step.name,
            step.workload,
            "optional" if step.optional else "core",
            " ".join(step.after),
            " ".join(step.settings),
            " ".join(step.captures),
            _forecast(blocked.get(step.name, ""), optional=step.optional),
        ]
        for step in ordered_steps(found.steps)
    ]


def _forecast(reason: str, *, optional: bool) -> str:
    if not reason:
        return "runs"
    return f"{'is skipped' if optional else 'fails'}: {reason}"


@suite.command()
def schema() -> None:
    """Print the JSON Schema of a suite's file."""
    import json

    from orchestrator.parsing.inputs.json_schema import suite_schema

    print(json.dumps(suite_schema(), indent=2))


@suite.command("run")
@click.argument("name", metavar="NAME|FILE")
@cluster_options
@click.option("--only", multiple=True, metavar="STEP", help="Run this step alone. Repeatable.")
@click.option("--skip", multiple=True, metavar="STEP", help="Leave this step out. Repeatable.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the latest run of this suite there, or --run-id ID; repeats nothing.",
)
@click.option(
    "--archive-to", metavar="PATH|NODE:PATH", help="Move the archive there when it is verified."
)
@click.option("--run-id", metavar="ID", help="Instead of a generated one; with --resume, that run.")
@color_option
@json_option
def run_(**given: Any) -> int:
    """Run the steps of suite NAME one after the other; a step that fails stops no other.

    Ends with one summary and one verified .tar.gz. Exits 0 when all core steps passed, 1 when one
    failed and all others are done, 75 when steps or the archive are open (--resume).
    """
    from orchestrator.cli.suites.begin_suite import SuiteOptions
    from orchestrator.cli.suites.run_suite import run_suite

    return run_suite(SuiteOptions(**given))


@suite.command()
@click.argument("named", nargs=-1, metavar="[RUN|ARCHIVE]...")
@click.option(
    "--out", default="evidence", show_default=True, metavar="DIR", help="Where they are written."
)
@click.option(
    "--prices", default="default", show_default=True, metavar="NAME|FILE", help="Of electricity."
)
@json_option
def publish(named: tuple[str, ...], out: str, prices: str, as_json: bool) -> None:
    """Write documents from archived runs of suites: efficiency baselines, known gaps, results.

    Without names: of each suite on each cluster, every step from the latest archive in which it was
    not left out. Every archive is verified first, and every figure carries the id of its run.
    """
    from pathlib import Path

    from orchestrator.adapters.catalog.catalog import Catalog
    from orchestrator.adapters.store.atomic_files import write_atomic
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.suite.archived_steps import gather_steps
    from orchestrator.adapters.suite.published import DOCUMENTS
    from orchestrator.cli.output import print_json
    from orchestrator.core.base.errors import UsageError

    electricity = Catalog.from_environment(os.environ).prices(prices).electricity
    steps = gather_steps(Layout.from_environment(os.environ), named)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, render in DOCUMENTS.items():
            write_atomic(folder / name, render(steps, electricity).encode("utf-8", "replace"))
    except OSError as error:
        what = f"the documents could not be written: {error.strerror or error}"
        raise UsageError(what, id="suite.publish", where=folder, remedy="--out DIR") from error
    documents = [str(folder / name) for name in DOCUMENTS]
    if as_json:
        runs = [step.run_id for step in steps if step.run_id]
        record = {"status": "succeeded", "exit_code": 0, "failure": None}
        print_json("result", {**record, "documents": documents, "runs": runs})
        return
    for document in documents:
        click.echo(document)
