"""``orchestrate migrate``: from old hardware to new, by a checklist that evidence closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchestrator.cli.options.shared import any_cluster_options, color_option, json_option

Command = TypeVar("Command", bound=Callable[..., Any])


def _suite_options(command: Command) -> Command:
    """How the suite is run, or which run of it is taken."""
    for option in (
        click.option("--only", multiple=True, metavar="STEP", help="Run this step alone."),
        click.option("--skip", multiple=True, metavar="STEP", help="Leave this step out."),
        click.option("--resume", is_flag=True, help="Go on with the latest run of the suite."),
        click.option("--suite-run", metavar="ID", help="Take this run of the suite; run nothing."),
        color_option,
        json_option,
        any_cluster_options,
    ):
        command = option(command)
    return command


@click.group()
def migrate() -> None:
    """Prove that work may move to new hardware: two bundles, a checklist, GO or NO-GO.

    \b
    orchestrate migrate capture toB200 --cluster oldlab
    orchestrate migrate verify  toB200 --cluster newlab --try-way-back
    orchestrate migrate report  toB200
    """


@migrate.command()
@click.argument("name", metavar="NAME")
@click.option("--playbook", default="b200", show_default=True, metavar="NAME|FILE")
@click.option("--replace", is_flag=True, help="Also where NAME was captured before.")
@_suite_options
def capture(name: str, playbook: str, replace: bool, **given: Any) -> int:
    """Run the playbook's baseline set on the old hardware and put the evidence into one bundle.

    The bundle travels: results, drivers, packages, topology and traces, with digests. Exits 1
    when a core step failed (the bundle says which), 75 when steps are open (--resume).
    """
    from orchestrator.cli.migrations.capture import capture_migration
    from orchestrator.cli.migrations.options import SuiteChoice

    return capture_migration(name, playbook, SuiteChoice(**given), replace=replace)


@migrate.command()
@click.argument("name", metavar="NAME")
@click.option("--against", metavar="FILE", help="The old bundle, if it was made elsewhere.")
@click.option("--bundle", metavar="FILE", help="A bundle of the new hardware; run nothing there.")
@click.option("--try-way-back", is_flag=True, help="Also run the way back on the old hardware.")
@_suite_options
def verify(
    name: str, against: str | None, bundle: str | None, try_way_back: bool, **given: Any
) -> int:
    """Run on the new hardware what the old one ran, and fill in the checklist.

    Each box has its value, its target, the evidence and a verdict. A box that is open, also for
    want of evidence, means NO-GO: exit 5. Writes way-back.sh beside the report.
    """
    from orchestrator.cli.migrations.options import SuiteChoice, VerifyOptions
    from orchestrator.cli.migrations.verify import verify_migration

    options = VerifyOptions(
        name=name,
        against=against,
        bundle=bundle,
        try_way_back=try_way_back,
        choice=SuiteChoice(**given),
    )
    return verify_migration(options)


@migrate.command()
@click.argument("name", metavar="NAME")
@json_option
def report(name: str, as_json: bool) -> int:
    """Print the checklist that verify filled in last; exits as it did."""
    import os

    from orchestrator.adapters.migration.migration_folder import migration_folder
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.migrations.show_checklist import report_migration

    folder = migration_folder(Layout.from_environment(os.environ), name)
    return report_migration(folder, as_json=as_json)
