"""``orchestrate exec``: one command on every node, without agent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import FiniteRange, cluster_options

if TYPE_CHECKING:
    from orchestrator.view.tables.gathered import EndingRecords, Gathered, Streamed

_NOT_FOUND = 127
_SHELL_SYNTAX = re.compile(r"[\s;|&<>$`()]")  # seldom part of a program's name


@click.command("exec", context_settings={"allow_interspersed_args": False})
@cluster_options
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="For the command on each node.",
)
@click.option("--connect-timeout", type=FiniteRange(1), default=20.0, show_default=True)
@click.option("--fanout", type=click.IntRange(1, 4096), default=128, show_default=True)
@click.option("--prefix", is_flag=True, help="Lines as they come, each with its node's name.")
@click.option("--json", "as_json", is_flag=True, help="One line per node, then a result.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD [ARGS...]")
def exec_(
    words: tuple[str, ...],
    *,
    cluster: str,
    nodes: str,
    timeout: float,
    connect_timeout: float,
    fanout: int,
    prefix: bool,
    as_json: bool,
) -> int:
    """Run CMD on every node; equal outputs are shown once, with the nodes' folded names.

    Exits with the highest code of all nodes; with 124 if CMD ran out of its time on a node, and
    with 4 if a node could not be reached or its login shell ended with 0 before CMD ran.
    """
    from orchestrator.adapters.transport.broker.find_broker import expect_connections
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.base.command import Command
    from orchestrator.core.base.errors import UsageError

    if prefix and as_json:
        raise UsageError("--prefix and --json do not go together", id="exec.output")
    selected = load_cluster(cluster, nodes)
    expect_connections(selected.workers)
    # Imported while the broker imports, too.
    from orchestrator.engine.oneshot.fanout import FanOut
    from orchestrator.engine.oneshot.interruptible import run_interruptibly

    try:
        command = Command(argv=words)
    except ValueError as error:
        raise UsageError(str(error), id="exec.command") from None
    view = _choose_view(prefix=prefix, as_json=as_json)
    fan = FanOut(command, timeout_s=timeout, connect_timeout_s=connect_timeout, width=fanout)
    run_interruptibly(fan.run(selected.workers, view))
    code = view.finish()
    if code == _NOT_FOUND and _SHELL_SYNTAX.search(words[0]):
        _suggest_shell(words)
    if as_json:
        _print_result(selected.name, view.told, code)
    return code


def _suggest_shell(words: Sequence[str]) -> None:
    import shlex

    line = shlex.quote(" ".join(words))
    what = "CMD is a program and its arguments; what follows -- is no line for a shell"
    click.echo(f"orchestrate: {what}\n  next: orchestrate exec ... -- sh -c {line}", err=True)


def _choose_view(*, prefix: bool, as_json: bool) -> Gathered | Streamed | EndingRecords:
    import functools
    import sys

    from orchestrator.cli.output import print_json
    from orchestrator.view.tables.gathered import EndingRecords, Gathered, Streamed
    from orchestrator.view.terminal.terminal import LineWriter

    if as_json:
        return EndingRecords(functools.partial(print_json, "node"), LineWriter(sys.stderr))
    return (Streamed if prefix else Gathered)(LineWriter(sys.stdout), LineWriter(sys.stderr))


def _print_result(cluster: str, told: Mapping[str, Sequence[str]], code: int) -> None:
    """``failure`` is the first thing that is said of nodes that did not end well."""
    from orchestrator.cli.output import print_json

    failures = [
        {"id": "exec.failed", "node": nodes[0], "rank": None, "cause": what, "remedy": ""}
        for what, nodes in told.items()
    ]
    result = {
        "status": "failed" if failures else "succeeded",
        "exit_code": code,
        "cluster": cluster,
        "failure": failures[0] if failures else None,
    }
    print_json("result", result)
