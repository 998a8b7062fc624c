"""``orchestrate connections``: what is held for the next command."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from orchestrator.cli.options.shared import cluster_options, json_option
from orchestrator.cli.output import print_json, print_table
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.parsing.replies.display_text import clean_line

if TYPE_CHECKING:
    from orchestrator.core.model.inventory import NodeSpec


@click.group()
def connections() -> None:
    """List, open and close the connections that stay."""


class _Kept(NamedTuple):
    """One that a broker or an ``ssh`` holds. ``since``: wall clock, in seconds."""

    name: str
    words: str
    since: float
    in_use: bool


@connections.command("list")
@json_option
def list_connections(as_json: bool) -> None:
    """List the connections that are held for a next command."""
    kept = sorted([*_of_brokers(), *_of_ssh().values()], key=lambda each: each.since)
    if as_json:
        for each in kept:
            print_json("connection", _record_of(each))
    elif kept:
        print_table(("name", "ssh", "held for", "use"), [_cells_of(each) for each in kept])
    else:
        print("no connection is held")


def _of_brokers() -> list[_Kept]:
    from orchestrator.adapters.transport.broker.look import broker_connections

    return [_Kept(*each[1:]) for each in broker_connections(os.environ)]


def _of_ssh() -> dict[Path, _Kept]:
    from orchestrator.adapters.transport.openssh.kept_sockets import kept_connections

    return {
        each.path: _Kept(each.path.name, each.words, each.since, each.in_use)
        for each in kept_connections(os.environ)
    }


@connections.command("close")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def close_connections(names: Sequence[str], as_json: bool) -> None:
    """Close the connections called NAME, or all that no command uses.

    One in use that is named ends with its command; the connection of an ssh ends at once. With all
    of them ends the process that begins commands sooner.
    """
    from orchestrator.adapters.transport.broker.look import close_broker_connections
    from orchestrator.adapters.transport.openssh.kept_sockets import end_master
    from orchestrator.adapters.warm.end import end_warm_processes

    of_brokers, of_ssh = _of_brokers(), _of_ssh()
    known = {each.name for each in (*of_brokers, *of_ssh.values())}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"no connection is called {unknown[0]!r}",
            id="connections.unknown",
            remedy="see orchestrate connections list",
        )
    chosen = [p for p, kept in of_ssh.items() if (kept.name in names if names else not kept.in_use)]
    closed = close_broker_connections(names or None, os.environ)
    closed += [path.name for path in chosen if end_master(path)]
    ended = 0 if names else end_warm_processes(os.environb)
    if as_json:
        print_json("result", {"closed": closed, "warm_processes_ended": ended})
        return
    also = "; the warm process ended" if ended else ""
    print(f"closed {len(closed)} of {len(known)} connections{also}")
    if later := [each for each in of_brokers if each.name in names and each.name not in closed]:
        print(f"{len(later)} in use: closed when their commands end")
    elif not names and len(closed) < len(known):
        print(f"{len(known) - len(closed)} in use: they stay with their commands")


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
            "no node logs in by your own ssh",
            id="connections.none",
            why="only those with 'transport: openssh' may ask for something; the connections of "
            "the others stay after their first command",
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


def _record_of(kept: _Kept) -> dict[str, object]:
    record = {"name": kept.name, "ssh": kept.words, "in_use": kept.in_use}
    return {**record, "held_s": _held_s(kept)}


def _cells_of(kept: _Kept) -> tuple[str, ...]:
    use = "in use" if kept.in_use else "idle"
    return kept.name, clean_line(kept.words), f"{_held_s(kept):.0f} s", use


def _held_s(kept: _Kept) -> float:
    return max(0.0, time.time() - kept.since)
