"""``migrate verify``: the new hardware's side, the way back, and the checklist of both."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

import click

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.history.import_runs import read_entry
from orchestrator.adapters.migration.migration_folder import (
    MigrationFolder,
    captured_migration,
    migration_folder,
)
from orchestrator.adapters.migration.physical_bounds import physical_bounds
from orchestrator.adapters.migration.read_bundle import read_bundle
from orchestrator.adapters.migration.way_back import (
    PLAYBOOK,
    SUITE,
    WayBackOrder,
    judge_way_back,
    run_way_back,
    write_way_back,
)
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.adapters.store.background_command import own_command, own_environment
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.migrations.options import VerifyOptions
from orchestrator.cli.migrations.run_side import make_bundle
from orchestrator.cli.migrations.show_checklist import save_checklist, show_checklist
from orchestrator.cli.run_words import UNWATCHED, job_words
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.history.run_record import RunRecord
from orchestrator.core.migration.checklist import fill_checklist
from orchestrator.core.migration.evidence import Bundle, WayBack
from orchestrator.core.migration.playbook import Playbook
from orchestrator.core.suite.suite_model import Suite

Restored = Mapping[str, bytes]


def verify_migration(options: VerifyOptions) -> int:
    """The exit code: 0 for GO, 5 where a box is open.

    Raises :class:`UsageError` before anything is contacted.
    """
    layout = Layout.from_environment(os.environ)
    folder = _folder(layout, options)
    old, restored = read_bundle(Path(options.against) if options.against else folder.old)
    make_private_dir(folder.path)
    for name in (PLAYBOOK, SUITE):
        write_atomic(folder.path / name, _restored(folder, restored, name))
    catalog = Catalog.from_environment(os.environ)
    playbook = catalog.read_playbook(folder.path / PLAYBOOK)
    suite = catalog.read_suite(folder.path / SUITE)
    new = _new_bundle(layout, folder, options)
    write_way_back(folder, _order(playbook, suite, old), restored)
    tried = _try(layout, folder, playbook, old) if options.try_way_back else None
    bounds = physical_bounds((one.metric for one in playbook.expectations), new.gpus)
    checklist = fill_checklist(playbook, old, new, tried, bounds)
    save_checklist(folder, checklist)
    return show_checklist(checklist, folder, as_json=options.choice.as_json)


def _folder(layout: Layout, options: VerifyOptions) -> MigrationFolder:
    if options.against is not None:
        return migration_folder(layout, options.name)
    return captured_migration(layout, options.name)


def _restored(folder: MigrationFolder, restored: Restored, name: str) -> bytes:
    if name not in restored:
        what, remedy = f"the old bundle pins no {name}", "capture it again"
        raise UsageError(what, id="migrate.bundle", where=folder.old, remedy=remedy)
    return restored[name]


def _new_bundle(layout: Layout, folder: MigrationFolder, options: VerifyOptions) -> Bundle:
    """Of the file that was named, else of a run of the suite that the old side ran."""
    if options.bundle is not None:
        return read_bundle(Path(options.bundle))[0]
    suite, playbook = folder.path / SUITE, folder.path / PLAYBOOK
    make_bundle(layout, options.choice, str(suite), playbook, folder.new)
    return read_bundle(folder.new)[0]


def _order(playbook: Playbook, suite: Suite, old: Bundle) -> WayBackOrder:
    step = suite.step(playbook.smoke)
    words = [*job_words(step.workload, old.nodes, step.settings), *UNWATCHED]
    return WayBackOrder(smoke=step.name, project=old.project, words=words)


def _try(layout: Layout, folder: MigrationFolder, playbook: Playbook, old: Bundle) -> WayBack:
    """Run the script, and compare what its run was with what the old bundle says of that step."""
    run_id = f"way-back-{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    click.echo(f"orchestrate: trying the way back, run {run_id}", err=True)
    environment = {**own_environment(layout), "ORCHESTRATE": shlex.join(own_command())}
    ended = run_way_back(folder, run_id, environment)
    after: RunRecord | None = None
    try:
        after = read_entry(layout.run(run_id)).record
    except (OSError, ValueError, OrchestrateError) as error:
        ended = ended or f"its run cannot be read: {error}"
    before = old.step(playbook.smoke).runs
    return judge_way_back(ended, before[-1] if before else None, after)
