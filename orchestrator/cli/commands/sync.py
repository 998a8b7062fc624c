"""``orchestrate sync``: the project on every node, before or without a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import cluster_options, json_option

if TYPE_CHECKING:
    from orchestrator.adapters.sync.code_snapshot import Snapshot
    from orchestrator.engine.oneshot.sync_only import Brought


@click.command()
@cluster_options
@click.option(
    "--workdir", metavar="DIR", help="The folder that travels; else the git root, or where you are."
)
@click.option("--check", is_flag=True, help="Nodes that have it all look at every file again.")
@json_option
def sync(cluster: str, nodes: str, workdir: str | None, *, check: bool, as_json: bool) -> int:
    """Bring the project to every node; a run of it then starts with nothing to send.

    Shows what travelled to each node, and what was left out by which rule. Exits with 4 if a node
    does not hold all of it.
    """
    import asyncio
    import os
    from pathlib import Path

    from orchestrator.adapters.store.bundled import bundled_kit
    from orchestrator.adapters.store.catalog import find_project
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.sync.code_snapshot import project_parts, take_snapshot
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.base.errors import ExitCode
    from orchestrator.core.model.request import Budgets
    from orchestrator.engine.oneshot.sync_only import bring

    selected = load_cluster(cluster, nodes)
    folder = find_project(Path.cwd(), Path(workdir) if workdir is not None else None)
    layout = Layout.from_environment(os.environ)
    snapshot = take_snapshot(project_parts(folder, bundled_kit(), layout.home), layout.snapshots)
    answers = asyncio.run(bring(selected.workers, snapshot, Budgets(), check=check))
    if as_json:
        _show_json(snapshot, answers)
    else:
        _show(snapshot, answers)
    return int(ExitCode.PREFLIGHT if any(answer.error for answer in answers) else ExitCode.DONE)


def _show(snapshot: Snapshot, answers: list[Brought]) -> None:
    from orchestrator.cli.output import print_table
    from orchestrator.view.terminal.text import brief, paragraph, plural, size

    print(f"{plural(snapshot.files, 'file')}, {size(snapshot.bytes)}, snapshot {snapshot.digest}")
    for skipped in snapshot.skipped:
        print(f"skipped by {brief(str(skipped), 300)}")
    print()
    print_table(("nodes", "state", "sent", "as", "seconds"), _rows(answers))
    for warning in snapshot.warnings:
        click.echo(f"warning: {brief(warning, 300)}", err=True)
    for answer in answers:
        if answer.error is not None:
            click.echo(f"orchestrate: {paragraph(str(answer.error))}", err=True)


def _rows(answers: list[Brought]) -> list[tuple[str, ...]]:
    """One row for all nodes to which the same was sent, with the slowest one's time."""
    from orchestrator.core.base.nodeset import fold
    from orchestrator.view.terminal.text import plural, size

    alike: dict[tuple[str, str, str], list[Brought]] = {}
    for answer in answers:
        sent = answer.sent
        state = "failed" if answer.error else "sent" if sent.files else "unchanged"
        cells = (state, plural(sent.files, "file"), size(sent.bytes))
        alike.setdefault(cells, []).append(answer)
    return [
        (fold(one.node for one in same), *cells, f"{max(one.seconds for one in same):.2f}")
        for cells, same in alike.items()
    ]


def _show_json(snapshot: Snapshot, answers: list[Brought]) -> None:
    from orchestrator.cli.output import plain, print_json

    record = {
        "digest": snapshot.digest,
        "files": snapshot.files,
        "bytes": snapshot.bytes,
        "skipped": plain(snapshot.skipped),
        "warnings": list(snapshot.warnings),
        "nodes": [_node_json(answer) for answer in answers],
    }
    print_json("sync", record)


def _node_json(answer: Brought) -> dict[str, Any]:
    error = answer.error
    return {
        "name": answer.node,
        "complete": error is None,
        "sent_files": answer.sent.files,
        "sent_bytes": answer.sent.bytes,
        "seconds": round(answer.seconds, 3),
        "error": None if error is None else {"id": error.id, "what": error.what, "why": error.why},
    }
