"""``orchestrate ray``: a Ray cluster for programs of one's own, from start to end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import (
    FiniteRange,
    any_cluster_options,
    cluster_options,
    json_option,
)

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.view.tables.ray_text import RayClusterState


@click.group()
def ray() -> None:
    """Keep a Ray cluster up on the nodes, for Ray Data, Serve, Tune and programs of your own."""


@ray.command()
@cluster_options
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="K=V",
    help="A parameter of the workload ray_cluster, such as cpus=8. Repeatable.",
)
@click.option(
    "--env", multiple=True, metavar="K=V|K", help="A variable for every task and actor. Repeatable."
)
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Take the cluster down after that time.",
)
@click.option("--exclusive", is_flag=True, help="Keep runs of others off the machines meanwhile.")
@json_option
def up(
    *,
    cluster: str,
    nodes: str,
    settings: tuple[str, ...],
    env: tuple[str, ...],
    timeout: float | None,
    exclusive: bool,
    as_json: bool,
) -> int:
    """Start a Ray cluster on the nodes, and say how to use it once every node has joined.

    It is a run in the background: ps, logs, attach and stop know it. It has the nodes' GPUs until
    it is taken down.
    """
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.cli.ray_clusters import await_cluster, refuse_second, start_cluster
    from orchestrator.cli.run_words import node_words

    layout = _home_layout()
    refuse_second(layout, load_cluster(cluster, nodes))
    words = ["--cluster", cluster, *node_words(nodes)]
    words += [word for setting in settings for word in ("--set", setting)]
    words += [word for variable in env for word in ("--env", variable)]
    words += ["--timeout", str(timeout)] if timeout is not None else []
    words += ["--exclusive"] if exclusive else []
    code, run_id = start_cluster(layout, words)
    known = await_cluster(layout.run(run_id)) if run_id else code
    if isinstance(known, int):
        return _tell_failed(run_id, known, as_json=as_json)
    _print_cluster(known, as_json=as_json)
    return 0


@ray.command()
@any_cluster_options
@json_option
def status(*, cluster: str | None, nodes: str, as_json: bool) -> int:
    """Show the Ray clusters that are up, and how to use them; exit code 1 if there is none."""
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.cli.ray_clusters import clusters_up

    wanted = load_cluster(cluster, nodes) if cluster else None
    found = list(clusters_up(_home_layout(), wanted))
    for known in found:
        _print_cluster(known, as_json=as_json)
    if not found:
        click.echo("no Ray cluster is up: orchestrate ray up --cluster C", err=True)
    return 0 if found else 1


@ray.command()
@cluster_options
@click.option("--now", is_flag=True, help="Kill at once instead of ending gracefully.")
@click.option("--timeout", type=FiniteRange(1), default=120.0, show_default=True)
def down(*, cluster: str, nodes: str, now: bool, timeout: float) -> int:
    """Take the Ray clusters of an inventory down, and confirm that nothing of them is left.

    Other Ray clusters on the machines are not touched. Exits with 4 when a node could not be
    confirmed clean.
    """
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.cli.ray_clusters import clusters_up, nodes_left
    from orchestrator.cli.stop_run import stop_run
    from orchestrator.core.base.errors import ExitCode

    layout = _home_layout()
    found = list(clusters_up(layout, load_cluster(cluster, nodes)))
    codes = [0]
    for known in found:
        folder = layout.run(known.run_id)
        codes.append(stop_run(layout, folder, now=now, timeout_s=timeout))
        if left := nodes_left(folder):
            codes.append(int(ExitCode.PREFLIGHT))
            what = f"not confirmed clean: {', '.join(left)}; orchestrate stop {known.run_id}"
        else:
            what = "nothing of it is left on any node"
        click.echo(f"Ray cluster of {known.run_id}: {what}", err=True)
    if not found:
        click.echo(f"no Ray cluster of {cluster} is up", err=True)
    return max(codes)


def _tell_failed(run_id: str, code: int, *, as_json: bool) -> int:
    """Its reason was told; programs get a line, too. A cluster that ended by itself is not up."""
    from orchestrator.cli.output import print_json
    from orchestrator.core.base.errors import ExitCode

    code = code or int(ExitCode.RUN_FAILED)
    if as_json:
        print_json("ray", {"run_id": run_id, "ready": False, "exit_code": code})
    return code


def _print_cluster(known: RayClusterState, *, as_json: bool) -> None:
    from orchestrator.cli.output import print_json
    from orchestrator.view.tables.ray_text import cluster_lines, cluster_object

    if as_json:
        print_json("ray", cluster_object(known))
    else:
        click.echo("\n".join(cluster_lines(known)))


def _home_layout() -> Layout:
    from orchestrator.adapters.store.layout import Layout

    return Layout.from_environment(os.environ)
