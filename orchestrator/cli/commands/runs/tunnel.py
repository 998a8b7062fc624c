"""``orchestrate tunnel``: how to reach the inference servers of a run from here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import json_option

if TYPE_CHECKING:
    from orchestrator.adapters.store.metric_series import Point
    from orchestrator.core.model.inventory import Cluster

# As the workload `serve` reports them; a node speaks of itself alone.
PORT = re.compile(r"engine_port\.(?P<node>.+)\.(?P<index>\d{1,3})")
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """Where an engine answers from here, while ``command`` runs; "" = without one."""

    node: str
    engine: int
    base_url: str
    command: str


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--port",
    type=click.IntRange(1, MAX_PORT),
    default=8000,
    show_default=True,
    help="The first port here; further engines get the ones after it.",
)
@json_option
def tunnel(run: str, port: int, as_json: bool) -> int:
    """Print an ssh command for each inference server of RUN, such as of workload serve.

    While it runs, the server answers at the URL beside it. Nothing is contacted by this command.
    """
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.metric_series import PointReader
    from orchestrator.adapters.store.run_list import find_run, read_result
    from orchestrator.cli.output import print_json
    from orchestrator.engine.oneshot.cleanup import read_request

    folder = find_run(Layout.from_environment(os.environ), run)
    cluster = read_request(folder).cluster
    if read_result(folder) is not None:
        click.echo(f"run {folder.run_id} is over: no engine of it is left", err=True)
        return 1
    reader = PointReader(folder.metrics)
    found = list(tunnels(chain.from_iterable(iter(reader.read, [])), cluster, port))
    if not found:
        what = "no inference server of this run is ready yet"
        click.echo(f"{what}: orchestrate logs {folder.run_id}", err=True)
        return 1
    for each in found:
        if as_json:
            print_json("tunnel", asdict(each))
        else:
            words = each.command or "# on this machine"
            click.echo(f"{words}  # {each.node}, engine {each.engine}: {each.base_url}")
    return 0


def tunnels(points: Iterable[Point], cluster: Cluster, first_port: int) -> Iterator[Tunnel]:
    """One for each engine of the newest attempt, in the order in which they were reported."""
    from orchestrator.core.model.inventory import TransportKind

    known = {node.name: node for node in cluster.nodes}
    for place, (node, engine, remote) in enumerate(_engine_ports(points)):
        spec, local = known.get(node), first_port + place
        if spec is None or local > MAX_PORT:
            continue
        here = spec.transport is TransportKind.LOCAL
        yield Tunnel(
            node=node,
            engine=engine,
            base_url=f"http://127.0.0.1:{remote if here else local}/v1",
            command="" if here else spec.ssh.tunnel(local, remote),
        )


def _engine_ports(points: Iterable[Point]) -> list[tuple[str, int, int]]:
    """(node, engine, its port there)."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for point in points:
        told = PORT.fullmatch(point.name)
        if told and told["node"] == point.node and 1 <= point.value <= MAX_PORT:
            found[point.node, int(told["index"])] = (point.attempt, int(point.value))
    newest = max((attempt for attempt, _ in found.values()), default=0)
    return [(node, at, port) for (node, at), (attempt, port) in found.items() if attempt == newest]
