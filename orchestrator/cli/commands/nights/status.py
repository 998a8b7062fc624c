"""``orchestrate status``: what runs, which nights are missing, and how figures developed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from orchestrator.cli.options.shared import FiniteRange


@click.command()
@click.option(
    "--format",
    type=click.Choice(["text", "markdown", "json", "html"]),
    default="text",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--out", metavar="FILE", help="Write there, as a whole or not at all.")
@click.option(
    "--every",
    type=FiniteRange(1, 3600),
    metavar="SECONDS",
    help="Write again so often until interrupted, for a file that people keep open.",
)
def status(format: str, as_json: bool, out: str | None, every: float | None) -> int:
    """Show runs, nights and trends; exits 1 when something alarms.

    \b
    orchestrate status --format markdown --out live_status.md --every 30
    """
    from orchestrator.core.base.errors import UsageError

    if every is not None and out is None:
        what, remedy = "--every needs a file", "add --out FILE"
        raise UsageError(what, id="status.every", remedy=remedy)
    from orchestrator.adapters.nightly.status_page import gather_status
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.nights.status_file import render_status, write_status

    layout, kind = Layout.from_environment(os.environ), "json" if as_json else format
    while True:
        page = gather_status(layout, now=time.time())
        text = render_status(page, kind, every)
        if out is None:
            click.echo(text, nl=False)
        else:
            write_status(Path(out), text)
        if every is None:
            return 1 if page.alarms or page.troubles else 0
        time.sleep(every)
