"""``orchestrate exec``: one command on every node, without agent."""

from __future__ import annotations

import click

from orchestrator.cli.options.shared import FiniteRange, cluster_options


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
) -> int:
    """Run CMD on every node; equal outputs are shown once, with the nodes' folded names.

    Exits with the highest code of all nodes; with 124 if CMD ran out of its time on a node, and
    with 4 if a node could not be reached or its login shell ended with 0 before CMD ran.
    """
    import sys

    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.base.command import Command
    from orchestrator.core.base.errors import UsageError
    from orchestrator.engine.oneshot.fanout import FanOut
    from orchestrator.engine.oneshot.interruptible import run_interruptibly
    from orchestrator.view.tables.gathered import Gathered, Streamed
    from orchestrator.view.terminal.terminal import LineWriter

    selected = load_cluster(cluster, nodes)
    try:
        command = Command(argv=words)
    except ValueError as error:
        raise UsageError(str(error), id="exec.command") from None
    view = (Streamed if prefix else Gathered)(LineWriter(sys.stdout), LineWriter(sys.stderr))
    fan = FanOut(command, timeout_s=timeout, connect_timeout_s=connect_timeout, width=fanout)
    run_interruptibly(fan.run(selected.workers, view))
    return view.finish()
