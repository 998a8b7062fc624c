"""One side of a migration: the suite that is run, or was, and the bundle of it."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import click

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    find_suite_run,
    read_order,
    read_suite_result,
)
from orchestrator.cli.migrations.bundle_suite import bundle_suite
from orchestrator.cli.migrations.options import SuiteChoice
from orchestrator.cli.suites.begin_suite import SuiteOptions, open_suite
from orchestrator.cli.suites.run_suite import pursue_suite
from orchestrator.core.base.errors import BusyError, ExitCode, UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.migration.playbook import Playbook
from orchestrator.core.suite.suite_model import Suite

LEFT_OPEN = frozenset({ExitCode.BUSY, ExitCode.INTERRUPTED})


def make_bundle(
    layout: Layout, choice: SuiteChoice, suite: str, playbook: Path, target: Path
) -> ExitCode:
    """Run the suite, or take a run of it, and write its bundle to ``target``: what the suite ended
    with. Raises :class:`UsageError` before anything is contacted, and :class:`BusyError` where
    steps are open.
    """
    catalog = Catalog.from_environment(os.environ)
    check_steps(catalog.read_playbook(playbook), catalog.read_suite(catalog.find_suite(suite)))
    folder, code = _suite_run(layout, choice, suite)
    if code in LEFT_OPEN:
        raise BusyError(
            "the suite is not over: there is no bundle yet",
            id="migrate.open",
            where=folder.path,
            remedy=read_order(folder).resume_command(folder.run_id),
        )
    click.echo("orchestrate: writing the bundle", err=True)
    bundle_suite(layout, folder, playbook, target)
    return code


def check_steps(playbook: Playbook, suite: Suite) -> None:
    """Every step that a box asks for is one of the suite. Raises :class:`UsageError`."""
    known = [step.name for step in suite.steps]
    for name in playbook.steps:
        if name not in known:
            raise UsageError(
                f"playbook {playbook.name} asks for a step that suite {suite.name} does not have:"
                f" {name!r}",
                id="migrate.step",
                where=suite.source,
                remedy=did_you_mean(name, known),
            )


def _suite_run(layout: Layout, choice: SuiteChoice, suite: str) -> tuple[SuiteFolder, ExitCode]:
    if choice.suite_run is not None:
        folder = find_suite_run(layout, choice.suite_run)
        return folder, _ended_with(folder)
    if choice.cluster is None:
        what, remedy = "no cluster is named", "--cluster NAME, or a bundle or run that is there"
        raise UsageError(what, id="migrate.cluster", remedy=remedy)
    options = SuiteOptions(
        name=suite,
        cluster=choice.cluster,
        nodes=choice.nodes,
        only=choice.only,
        skip=choice.skip,
        resume=choice.resume,
        archive_to=None,
        run_id=None,
        color=choice.color,
        as_json=False,
    )
    # Of JSON there is one result, that of the migration.
    with redirect_stdout(sys.stderr) if choice.as_json else nullcontext():
        run = open_suite(layout, options)
        return run.folder, ExitCode(pursue_suite(run, options))


def _ended_with(folder: SuiteFolder) -> ExitCode:
    """As ``suite run`` ended; busy while the suite has no result."""
    result = read_suite_result(folder)
    return ExitCode.BUSY if result is None else ExitCode(result["exit_code"])
