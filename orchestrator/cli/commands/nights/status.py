"""``orchestrate status``: what runs, which nights are missing, and how figures developed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import FiniteRange

if TYPE_CHECKING:
    from orchestrator.adapters.nightly.status_page import StatusPage


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
    kind = "json" if as_json else format
    while True:
        page = _gather()
        _put(_render(page, kind, every), out)
        if every is None:
            return 1 if page.alarms or page.troubles else 0
        time.sleep(every)


def _gather() -> StatusPage:
    from orchestrator.adapters.nightly.status_page import gather_status
    from orchestrator.adapters.store.layout import Layout

    return gather_status(Layout.from_environment(os.environ), now=time.time())


def _render(page: StatusPage, kind: str, every: float | None) -> str:
    import json

    from orchestrator.view.result import status_text

    if kind == "json":
        record = {"type": "status", "schema_version": 1, **status_text.status_object(page)}
        return json.dumps(record, ensure_ascii=True) + "\n"
    if kind == "html":
        return status_text.status_html(page, every)
    if kind == "markdown":
        return status_text.status_markdown(page)
    return status_text.status_plain(page)


def _put(text: str, out: str | None) -> None:
    from orchestrator.adapters.store.atomic_files import write_atomic
    from orchestrator.core.base.errors import UsageError

    if out is None:
        click.echo(text, nl=False)
        return
    try:
        write_atomic(Path(out).absolute(), text.encode("utf-8", "replace"))
    except OSError as error:
        what = f"the status could not be written: {error.strerror or error}"
        raise UsageError(what, id="status.out", where=out, remedy="name another --out") from error
