"""``orchestrate connections``: what ``transport: openssh`` holds for the next command."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import cluster_options, json_option
from orchestrator.cli.output import print_json, print_table
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.parsing.replies.display_text import clean_line

if TYPE_CHECKING:
    from orchestrator.adapters.transport.openssh.kept_sockets import KeptConnection
    from orchestrator.core.model.inventory import NodeSpec


@click.group()
def connections() -> None:
    """List, open and close the connections that stay."""


@connections.command("list")
@json_option
def list_connections(as_json: bool) -> None:
    """List the connections that are held for a next command."""
    from orchestrator.adapters.transport.openssh.kept_sockets import kept_connections

    kept = kept_connections(os.environ)
    if as_json:
        for each in kept:
            print_json("connection", _record_of(each))
    elif kept:
        print_table(("name", "ssh", "held for", "use"), [_cells_of(each) for each in kept])
    else:
        print("no connection is held; nodes with 'transport: openssh' keep theirs")


@connections.command("close")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def close_connections(names: Sequence[str], as_json: bool) -> None:
    """Close the connections called NAME, or all that no command uses.

    All: the process that begins commands sooner ends, too.
    """
    from orchestrator.adapters.transport.openssh.kept_sockets import end_master, kept_connections
    from orchestrator.adapters.warm.end import end_warm_processes

    kept = {each.path.name: each for each in kept_connections(os.environ)}
    if unknown := [name for name in names if name not in kept]:
        raise UsageError(
            f"no connection is called {unknown[0]!r}",
            id="connections.unknown",
            remedy="see orchestrate connections list",
        )
    chosen = names or [name for name, each in kept.items() if not each.in_use]
    closed = [name for name in chosen if end_master(kept[name].path)]
    ended = 0 if names else end_warm_processes(os.environb)
    if as_json:
        print_json("result", {"closed": closed, "warm_processes_ended": ended})
        return
    also = "; the warm process ended" if ended else ""
    print(f"closed {len(closed)} of {len(kept)} connections{also}")


@connections.command("open")
@cluster_options
def open_connections(cluster: str, nodes: str) -> None:
    """Log in to nodes whose login asks for something: a code, a passphrase, a touch.

    The connections then stay for the commands that follow.
    """
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.model.inventory import TransportKind

    selected = load_cluster(cluster, nodes).nodes
    reached = [node for node in selected if node.transport is TransportKind.OPENSSH]
    if not reached:
        raise UsageError(
            "no node has a connection that stays",
            id="connections.none",
            why="only those with 'transport: openssh' do",
            remedy=f"set it in the inventory of {cluster}",
        )
    failed = [node.name for node in reached if not _log_in(node)]
    if failed:
        print(f"not connected: {', '.join(failed)}")
        raise SystemExit(ExitCode.PREFLIGHT)
    print(f"connected: {len(reached)}; see orchestrate connections list")


def _log_in(node: NodeSpec) -> bool:
    from orchestrator.adapters.transport.openssh.kept_connections import log_in

    command = clean_line(f"{node.name}: {node.ssh.command()}")
    return log_in(node.ssh, lambda: print(command, flush=True))


def _record_of(kept: KeptConnection) -> dict[str, object]:
    record = {"name": kept.path.name, "ssh": kept.words, "in_use": kept.in_use}
    return {**record, "held_s": _held_s(kept)}


def _cells_of(kept: KeptConnection) -> tuple[str, ...]:
    use = "in use" if kept.in_use else "idle"
    return kept.path.name, clean_line(kept.words), f"{_held_s(kept):.0f} s", use


def _held_s(kept: KeptConnection) -> float:
    return max(0.0, time.time() - kept.since)
