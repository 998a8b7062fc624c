"""``migrate capture``: the old hardware's side."""

from __future__ import annotations

import os

import click

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.migration.migration_folder import MigrationFolder, migration_folder
from orchestrator.adapters.migration.read_bundle import read_bundle
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.migrations.options import SuiteChoice
from orchestrator.cli.migrations.run_side import make_bundle
from orchestrator.cli.output import print_json
from orchestrator.core.base.errors import ExitCode, UsageError


def capture_migration(name: str, playbook: str, choice: SuiteChoice, *, replace: bool) -> int:
    """Raises :class:`UsageError` before anything is contacted, also where NAME was captured."""
    layout = Layout.from_environment(os.environ)
    folder = migration_folder(layout, name)
    if folder.old.exists() and not replace:
        what, remedy = f"{name} was captured before", "another name, or --replace"
        raise UsageError(what, id="migrate.exists", where=folder.old, remedy=remedy)
    catalog = Catalog.from_environment(os.environ)
    path = catalog.find_playbook(playbook)
    suite = catalog.read_playbook(path).suite
    code = make_bundle(layout, choice, suite, path, folder.old)
    _show(folder, choice, code)
    return int(code)


def _show(folder: MigrationFolder, choice: SuiteChoice, code: ExitCode) -> None:
    bundle, _ = read_bundle(folder.old)
    ran = sorted(name for name, step in bundle.steps.items() if step.succeeded)
    lacking = {name: step.text for name, step in bundle.steps.items() if not step.succeeded}
    if choice.as_json:
        steps = {name: step.text for name, step in bundle.steps.items()}
        found = {"bundle": str(folder.old), "succeeded": ran, "steps": steps}
        print_json("result", {"schema_version": 1, "exit_code": int(code), **found})
        return
    click.echo(f"{folder.old}: {len(ran)} of {len(bundle.steps)} steps succeeded")
    for name, why in lacking.items():
        click.echo(f"  {name}: {why}")
    click.echo(f"next: orchestrate migrate verify {folder.name} --cluster NEW --try-way-back")
