"""``orchestrate sync``: the project on every node, before or without a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.shared import any_cluster_options, json_option
from orchestrator.cli.output import print_json

if TYPE_CHECKING:
    from orchestrator.adapters.sync.code_snapshot import Snapshot
    from orchestrator.core.model.inventory import NodeSpec
    from orchestrator.engine.oneshot.sync_only import Brought


@click.command()
@any_cluster_options
@click.option(
    "--workdir", metavar="DIR", help="The folder that travels; else the git root, or where you are."
)
@click.option("--check", is_flag=True, help="Nodes that have it all look at every file again.")
@click.option("--dry-run", is_flag=True, help="Show every file that would travel; ask no node.")
@json_option
def sync(
    cluster: str | None,
    nodes: str,
    workdir: str | None,
    *,
    check: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Bring the project to every node; a run of it then starts with nothing to send.

    Shows what travelled to each node, and what was left out by which rule. Exits with 4 if a node
    does not hold all of it.
    """
    from orchestrator.adapters.transport.broker.find_broker import expect_connections
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.base.errors import ExitCode
    from orchestrator.core.model.plan import Budgets
    from orchestrator.engine.oneshot.interruptible import run_interruptibly
    from orchestrator.engine.oneshot.sync_only import bring

    if cluster is None and not dry_run:
        raise click.UsageError("Missing option '-C' / '--cluster'.")
    workers: Sequence[NodeSpec] = ()
    if cluster is not None:
        workers = load_cluster(cluster, nodes).workers
    if not dry_run:
        expect_connections(workers)
    snapshot = _take_snapshot(workdir)
    if dry_run:
        _show_dry(snapshot, workers, as_json=as_json)
        return int(ExitCode.DONE)
    if not as_json:
        _show_snapshot(snapshot)  # what travels, before the wait for it
        sys.stdout.flush()
    answers = run_interruptibly(bring(workers, snapshot, Budgets(), check=check))
    if as_json:
        print_json(
            "sync", {**_snapshot_record(snapshot), "nodes": [_node_json(one) for one in answers]}
        )
    else:
        _show_answers(answers)
    return int(ExitCode.PREFLIGHT if any(answer.error for answer in answers) else ExitCode.DONE)


def _take_snapshot(workdir: str | None) -> Snapshot:
    import os
    from pathlib import Path

    from orchestrator.adapters.catalog.bundled import bundled_kit
    from orchestrator.adapters.catalog.project_folder import find_project
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.sync.code_snapshot import project_parts, take_snapshot

    folder = find_project(Path.cwd(), Path(workdir) if workdir is not None else None)
    layout = Layout.from_environment(os.environ)
    return take_snapshot(project_parts(folder, bundled_kit(), layout.home), layout.snapshots)


def _show_dry(snapshot: Snapshot, workers: Sequence[NodeSpec], *, as_json: bool) -> None:
    from orchestrator.core.base.nodeset import fold_nodeset
    from orchestrator.view.terminal.text import brief_text

    if as_json:
        names = [spec.name for spec in workers]
        print_json(
            "sync", {**_snapshot_record(snapshot), "paths": sorted(snapshot.paths), "nodes": names}
        )
        return
    _show_snapshot(snapshot)
    print()
    for path in sorted(snapshot.paths):
        print(path)
    to = (
        brief_text(fold_nodeset(spec.name for spec in workers), 300)
        if workers
        else "no cluster was named"
    )
    click.echo(f"nothing was sent ({to})", err=True)


def _show_answers(answers: list[Brought]) -> None:
    from orchestrator.cli.output import print_table
    from orchestrator.view.terminal.text import clean_paragraph

    print()
    print_table(("nodes", "state", "sent", "as", "seconds"), _answer_rows(answers))
    for answer in answers:
        if answer.error is not None:
            click.echo(f"orchestrate: {clean_paragraph(str(answer.error))}", err=True)


def _show_snapshot(snapshot: Snapshot) -> None:
    from orchestrator.view.terminal.text import brief_text, count_noun, format_size

    print(
        f"{count_noun(snapshot.files, 'file')}, {format_size(snapshot.bytes)}, "
        f"snapshot {snapshot.digest}"
    )
    for skipped in snapshot.skipped:
        print(f"left out: {brief_text(str(skipped), 300)}")
    for warning in snapshot.warnings:
        click.echo(f"warning: {brief_text(warning, 300)}", err=True)


def _answer_rows(answers: list[Brought]) -> list[tuple[str, ...]]:
    """One row for all nodes to which the same was sent, with the slowest one's time."""
    from orchestrator.core.base.nodeset import fold_nodeset
    from orchestrator.view.terminal.text import count_noun, format_size

    alike: dict[tuple[str, str, str], list[Brought]] = {}
    for answer in answers:
        sent = answer.sent
        state = "failed" if answer.error else "sent" if sent.files else "unchanged"
        cells = (state, count_noun(sent.files, "file"), format_size(sent.bytes))
        alike.setdefault(cells, []).append(answer)
    return [
        (fold_nodeset(one.node for one in same), *cells, f"{max(one.seconds for one in same):.2f}")
        for cells, same in alike.items()
    ]


def _snapshot_record(snapshot: Snapshot) -> dict[str, Any]:
    from orchestrator.cli.output import plain_data

    return {
        "digest": snapshot.digest,
        "files": snapshot.files,
        "bytes": snapshot.bytes,
        "skipped": plain_data(snapshot.skipped),
        "warnings": list(snapshot.warnings),
    }


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
