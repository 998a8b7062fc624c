"""``orchestrate notify``: try the targets of notify.yaml, and send what waits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.parsing.inputs.nights.notify_file import NotifyTarget


@click.group()
def notify() -> None:
    """Notify people of runs and nights; notify.yaml in the home folder names the targets."""


@notify.command("list")
def list_() -> None:
    """List the targets, without their secrets."""
    from orchestrator.adapters.notify.outbox import notify_file, read_targets
    from orchestrator.cli.output import print_table

    layout = _layout()
    rows = [(target.name, _kind(target), " ".join(target.on)) for target in read_targets(layout)]
    if rows:
        print_table(("target", "kind", "notified of"), rows)
    else:
        click.echo(f"no targets: {notify_file(layout)} names none (docs/nightly.md)", err=True)


@notify.command()
def test() -> int:
    """Send one notice to every target now; exits 1 if one did not take it, 2 if there is none."""
    from orchestrator.adapters.notify.deliver import NotDelivered, deliver
    from orchestrator.adapters.notify.notice import Notice, Occasion

    notice = Notice(
        occasion=Occasion.FINISHED, subject="orchestrate: a test", text="Notices arrive here."
    )
    code = 0
    for target in _require_targets(_layout()):
        try:
            deliver(notice, target, os.environ)
            click.echo(f"{target.name}: delivered")
        except NotDelivered as error:
            code = 1
            click.echo(f"{target.name}: not delivered: {error}")
    return code


@notify.command()
def send() -> int:
    """Send the notices that wait; runs and nights start this by themselves."""
    from orchestrator.adapters.notify.sender import NoticeSender

    def say(text: str) -> None:
        click.echo(text, err=True)

    sender = NoticeSender(layout=_layout(), environ=os.environ, say=say)
    return 1 if sender.send_waiting() else 0


def _require_targets(layout: Layout) -> tuple[NotifyTarget, ...]:
    """At least one. Raises ``UsageError``."""
    from orchestrator.adapters.notify.outbox import notify_file, read_targets
    from orchestrator.core.base.errors import UsageError

    targets = read_targets(layout)
    if not targets:
        file = notify_file(layout)
        raise UsageError(
            "no targets: no notice would be sent",
            id="notify.targets",
            where=file,
            why="it names none" if file.exists() else "the file does not exist",
            remedy="write it as docs/nightly.md shows, with at least one target",
        )
    return targets


def _layout() -> Layout:
    from orchestrator.adapters.store.layout import Layout

    return Layout.from_environment(os.environ)


def _kind(target: object) -> str:
    kinds = ("webhook", "smtp", "apprise")
    return next(kind for kind in kinds if getattr(target, kind) is not None)
