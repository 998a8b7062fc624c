"""The Ray clusters that runs of this home keep up: started, awaited, found, taken down."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterator, Sequence

import click

from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import read_identity
from orchestrator.adapters.store.run_list import read_names, read_result, unfinished_state
from orchestrator.cli.start_detached import start_detached
from orchestrator.core.base.errors import BusyError, DeadlineError
from orchestrator.core.model.inventory import Cluster
from orchestrator.engine.oneshot.cleanup import read_request
from orchestrator.view.progress.following import follow_run
from orchestrator.view.progress.ray_watcher import RayWatcher
from orchestrator.view.progress.replay_view import Replay
from orchestrator.view.result.failure_screen import failure_screen
from orchestrator.view.tables.ray_text import RayClusterState

WORKLOAD = "ray_cluster"
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - the variable's name
# The ranks end the run themselves when one of them has not joined in time.
BEYOND_READY_S = 60.0


def start_cluster(layout: Layout, words: Sequence[str]) -> tuple[int, str]:
    """(exit code, run id) of a run that is to keep a cluster up; see :func:`start_detached`."""
    fixed = ("--workload", WORKLOAD, "--launcher", "direct", "--no-fabric-probe")
    auth = ("--env", "RAY_AUTH_MODE=token", "--env", TOKEN)
    token = secrets.token_hex(32)
    return start_detached(layout, [*fixed, *auth, *words], {TOKEN: token})


def await_cluster(folder: RunFolder) -> RayClusterState | int:
    """The cluster once every node has joined; the run's exit code if it ended before.

    Raises :class:`BusyError` when the coordinator died, :class:`DeadlineError`.
    """
    request = read_request(folder)
    watcher, replay = _watch(folder)
    ready_s = float(request.job.values.get("ready", 0.0))
    deadline = time.monotonic() + ready_s + BEYOND_READY_S

    def is_over() -> bool:
        return watcher.look("").ready or time.monotonic() > deadline

    result = follow_run(folder, replay.advance, until=is_over)
    if result is not None:
        click.echo("\n".join(failure_screen(result, folder.path)), err=True)
        return int(result.exit_code)
    known = watcher.look(_state_of(folder))
    if not known.ready:
        raise _not_joined(known)
    return known


def _not_joined(known: RayClusterState) -> DeadlineError:
    missing = ", ".join(known.missing) or "every node"
    return DeadlineError(
        f"Ray is not up: {missing} did not join in time",
        id="OR-RAY-002",
        remedy=f"orchestrate logs {known.run_id}; orchestrate stop {known.run_id}",
    )


def clusters_up(layout: Layout, cluster: Cluster | None) -> Iterator[RayClusterState]:
    """Those of runs that are not over, oldest first; if ``cluster`` is given, with a node of it."""
    for folder in map(layout.run, layout.run_ids()):
        if folder.result.exists() or read_names(folder).workload != WORKLOAD:
            continue
        watcher, replay = _watch(folder)
        while replay.advance():
            pass
        known = watcher.look(_state_of(folder))
        if cluster is None or _share_node(known.cluster, cluster):
            yield known


def _share_node(one: Cluster, other: Cluster) -> bool:
    names = {node.name for node in one.workers} & {node.name for node in other.workers}
    return one.source == other.source and bool(names)


def refuse_second(layout: Layout, cluster: Cluster) -> None:
    """Raise :class:`BusyError` if a cluster is up on one of these nodes."""
    for known in clusters_up(layout, cluster):
        where = f"--cluster {shlex.quote(cluster.source)}"
        raise BusyError(
            f"a Ray cluster is up on {cluster.name}: run {known.run_id}",
            id="OR-RAY-003",
            remedy=f"orchestrate ray status shows how to use it; orchestrate ray down {where}",
        )


def nodes_left(folder: RunFolder) -> list[str]:
    """The nodes of a run that is over which were not seen clean."""
    result = read_result(folder)
    if result is None:
        return []
    return [node.name for node in result.nodes if node.state in {"lost", "dirty"}]


def _watch(folder: RunFolder) -> tuple[RayWatcher, Replay]:
    observers: list[RayWatcher] = []
    replay = Replay(folder, observers)
    observers.append(RayWatcher(replay.state))
    return observers[0], replay


def _state_of(folder: RunFolder) -> str:
    return unfinished_state(read_identity(folder.coordinator))
