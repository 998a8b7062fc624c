"""What is said of a Ray cluster, from what its ranks report; they are not trusted."""

from __future__ import annotations

import json
import shlex

import pytest

from orchestrator.core.run.kit_reports import Reported
from orchestrator.view.progress.ray_watcher import RayWatcher
from orchestrator.view.tables.ray_text import RayClusterState, cluster_lines, cluster_object
from tests.core.world import World, request


def figure(node: str, name: str, value: float) -> Reported:
    return Reported(node=node, rank=0, name=name, value=value, unit="", step=None)


def watched(*lines: tuple[str, str], figures: tuple[Reported, ...] = ()) -> RayClusterState:
    """What is known of a cluster of two nodes after its ranks wrote and reported this."""
    world = World(request("gpu01", "gpu02"))
    state = world.run()
    watcher = RayWatcher(state)
    for at, reported in enumerate(figures):
        watcher.on_event(float(at), reported, state)
    for node, line in lines:
        watcher.on_log(node, "rank-0.out", line.encode() + b"\n")
        watcher.on_log(node, "rank-0.err", b"ray_cluster: x: environment /tmp/or-9/env\n")
    return watcher.look("running")


def said(node: str, path: str) -> tuple[str, str]:
    return node, f"ray_cluster: {node}: environment {path}"


def test_a_cluster_is_up_when_every_node_has_said_so() -> None:
    joined = tuple(figure(name, f"ray_cpus.{name}", 8) for name in ("gpu01", "gpu02"))
    port = figure("gpu01", "ray_dashboard.gpu01", 8266)
    one = watched(said("gpu01", "/tmp/or-1/env"), figures=(*joined, port))
    both = watched(
        *(said("gpu01", "/tmp/or-1/env"), said("gpu02", "/tmp/or-2/env")),
        figures=(*joined, port),
    )

    assert (one.ready, one.missing) == (False, ["gpu02"])
    assert (both.ready, both.missing) == (True, [])
    lines = list(cluster_lines(both))
    assert lines[0].startswith("Ray on 2 nodes of test, 16 CPUs, 0 GPUs, at 10.0.0.")
    (here,) = [line for line in lines if "from here" in line]
    assert shlex.split(here)[-1] == ". /tmp/or-1/env && python PROGRAM.py"
    (tunnel,) = [line for line in lines if "dashboard" in line]
    assert "-L 8265:127.0.0.1:8266 gpu01" in tunnel
    assert "missing    gpu02" in "\n".join(cluster_lines(one))
    told = json.loads(json.dumps(cluster_object(both)))
    assert told["nodes"][1]["environment"] == "/tmp/or-2/env"


@pytest.mark.parametrize(
    "path", ["/tmp/x; rm -rf ~", "$(id)", "relative/env", "/tmp/\x1b]0;owned\x07env'", "/" * 400]
)
def test_what_a_rank_says_is_not_pasted_unless_it_is_a_plain_path(path: str) -> None:
    joined = figure("gpu01", "ray_cpus.gpu01", 8)
    assert not watched(said("gpu01", path), figures=(joined,)).members[0].environment


def test_a_node_speaks_of_itself_alone() -> None:
    lies = figure("gpu02", "ray_cpus.gpu01", 9999), figure("gpu01", "ray_cpus.gpu01", 1e12)
    assert watched(figures=lies).members[0].cpus is None
