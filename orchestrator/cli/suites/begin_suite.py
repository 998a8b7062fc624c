"""A run of a suite, new or resumed, ready for its steps."""

from __future__ import annotations

import os
import platform
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.adapters.catalog.catalog import Catalog, absolute_name, read_bounded
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import new_run_id
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    SuiteOrder,
    create_suite_run,
    find_suite_run,
    is_open,
    new_suite_folder,
    read_order,
    suite_runs_of,
)
from orchestrator.cli.node_queries import error_record
from orchestrator.cli.output import plain_data
from orchestrator.cli.suites.step_requests import Survey, survey_suite
from orchestrator.core.base.errors import BusyError, UsageError
from orchestrator.core.suite.suite_model import Suite, select_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """The values of the options of ``suite run``."""

    name: str
    cluster: str
    nodes: str
    only: tuple[str, ...]
    skip: tuple[str, ...]
    resume: bool
    archive_to: str | None
    run_id: str | None
    color: str
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRun:
    """One run of a suite, new or resumed, that is ready to go on."""

    layout: Layout
    folder: SuiteFolder
    order: SuiteOrder
    suite: Suite

    @property
    def resume_command(self) -> str:
        """What continues this run."""
        return self.order.resume_command(self.folder.run_id)


def survey_environment(survey: Survey, now: float) -> dict[str, Any]:
    """What the nodes and this coordinator were, for the archive; ``now`` in seconds since the
    epoch.
    """
    return {
        "taken": now,
        "coordinator": {
            "orchestrate": orchestrator.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "requirements": survey.requirements,
        "nodes": [
            {
                "node": answer.node,
                "facts": plain_data(answer.facts),
                "error": error_record(answer.error),
            }
            for answer in survey.answers
        ],
    }


def open_suite(layout: Layout, options: SuiteOptions) -> SuiteRun:
    """The run that the options ask for, new or resumed. Raises as these two do."""
    return resume_suite(layout, options) if options.resume else begin_suite(layout, options)


def begin_suite(layout: Layout, options: SuiteOptions) -> SuiteRun:
    """A new run: everything is validated, then the nodes are asked, then its folder is made.

    Raises :class:`UsageError` before anything is contacted, :class:`PreflightError`, and
    :class:`BusyError` where nothing can be written.
    """
    catalog = Catalog.from_environment(os.environ)
    path = catalog.find_suite(options.name)
    suite = catalog.read_suite(path)
    skipped = select_steps(suite, options.only, options.skip)
    now = datetime.now().astimezone()
    run_id = options.run_id or new_run_id(now, suite.name, random.SystemRandom())
    folder = new_suite_folder(layout, run_id)
    survey = survey_suite(suite, options.cluster, options.nodes, skipped)
    order = SuiteOrder(
        suite=suite.name,
        source=suite.source,
        cluster=absolute_name(options.cluster),
        named=absolute_name(options.name),
        nodes=options.nodes,
        folder=str(Path.cwd()),
        began=now.timestamp(),
        skipped=skipped,
        blocked=survey.blocked,
    )
    environment = survey_environment(survey, now.timestamp())
    try:
        create_suite_run(folder, order, read_bounded(path), environment)
    except OSError as error:
        raise not_writable(folder, error) from error
    return SuiteRun(layout=layout, folder=folder, order=order, suite=suite)


def resume_suite(layout: Layout, options: SuiteOptions) -> SuiteRun:
    """The run that ``--run-id`` names, else the latest of this suite on this cluster, as it began.
    Raises :class:`UsageError`.
    """
    folder = _chosen_run(layout, options)
    if options.only or options.skip or options.nodes:
        what, remedy = "a suite is resumed as it began", "leave out --only, --skip and --nodes"
        raise UsageError(what, id="suite.resume", where=folder.path, remedy=remedy)
    order = read_order(folder)
    _enter_folder(order)
    suite = Catalog.from_environment(os.environ).read_suite(folder.suite, order.source)
    return SuiteRun(layout=layout, folder=folder, order=order, suite=suite)


def open_runs(run: SuiteRun) -> list[str]:
    """What continues each other run of the same suite on the same cluster that is not over, latest
    first. Raises :class:`UsageError` where what one was asked to do is damaged.
    """
    runs = suite_runs_of(run.layout, run.order.suite, run.order.cluster)
    left = (folder for folder in runs if folder != run.folder and is_open(folder))
    return [read_order(folder).resume_command(folder.run_id) for folder in left]


def _chosen_run(layout: Layout, options: SuiteOptions) -> SuiteFolder:
    runs = _runs_of_suite(layout, options)
    if not runs:
        what = f"there is no run of suite {options.name} on {options.cluster} to resume"
        raise UsageError(what, id="suite.resume", where=layout.suites, remedy="leave out --resume")
    folder = find_suite_run(layout, options.run_id) if options.run_id else runs[0]
    if folder not in runs:
        order = read_order(folder)
        what = f"run {folder.run_id} is of suite {order.suite} on {order.cluster}"
        remedy = order.resume_command(folder.run_id)
        raise UsageError(what, id="suite.resume", where=folder.path, remedy=remedy)
    return folder


def _runs_of_suite(layout: Layout, options: SuiteOptions) -> list[SuiteFolder]:
    """Latest first. A path is read for the name of its suite."""
    cluster = absolute_name(options.cluster)
    if runs := list(suite_runs_of(layout, options.name, cluster)):
        return runs
    catalog = Catalog.from_environment(os.environ)
    suite = catalog.read_suite(catalog.find_suite(options.name))
    return list(suite_runs_of(layout, suite.name, cluster))


def _enter_folder(order: SuiteOrder) -> None:
    """Paths of workloads in the suite are relative to where it began. Raises ``UsageError``."""
    try:
        os.chdir(order.folder)
    except OSError as error:
        what = f"the folder in which the suite began cannot be entered: {error.strerror}"
        remedy = "put it back, or begin a new run of the suite"
        raise UsageError(what, id="suite.resume", where=order.folder, remedy=remedy) from error


def not_writable(folder: SuiteFolder, error: OSError) -> BusyError:
    """What to say where the state of a suite cannot be written."""
    return BusyError(
        f"the state of the suite cannot be written: {error.strerror or error}",
        id="suite.disk",
        where=folder.path,
        remedy="free space there; what was done is kept, and --resume continues",
    )
