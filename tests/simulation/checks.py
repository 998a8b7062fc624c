"""The invariants of a run: after each coordinator's end, and when all is over."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.base.errors import BusyError, ExitCode, RunFailed
from orchestrator.core.verdict.result import Result, Status
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.oneshot import cleanup as revisit
from orchestrator.engine.support.interrupts import Abandoned
from orchestrator.engine.support.replay import replay_journal
from tests.simulation.disk import AttemptFiles
from tests.simulation.loop import Killed

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import RunFolder
    from tests.simulation.coordinator import Coordinator
    from tests.simulation.simulation import Simulation

# A verdict that names these states vouches for the node: nothing of the run is there.
CLEAN_STATES = frozenset({"used", "stopped", "failed"})
LEFT_TO_ITSELF = (Killed, RunFailed, BusyError, Abandoned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What must not depend on how often the coordinator died."""

    status: str
    cause: tuple[str, str | None, int | None] | None
    metrics: dict[str, float | None]
    nodes: dict[str, str]
    logs: dict[str, bytes]
    artifacts: dict[str, bytes]
    series: dict[tuple[str, int, int], float]


# ---- when a coordinator ends ---------------------------------------------------------------------


def at_end_of_coordinator(simulation: Simulation, coordinator: Coordinator) -> None:
    """Its verdict is honest; its folder tells what it knew; its logs are the nodes'."""
    world, outcome = simulation.world, coordinator.outcome
    check_logs(simulation, coordinator.folder)
    check_replay(simulation, coordinator)
    if isinstance(outcome, Result):
        check_verdict(simulation, coordinator, outcome)
    elif not isinstance(outcome, LEFT_TO_ITSELF):
        world.violate(f"{coordinator.process.name} broke: {outcome!r}")


def at_end_of_rival(simulation: Simulation, rival: Coordinator) -> None:
    """Two coordinators never act at once."""
    if not isinstance(rival.outcome, BusyError) or rival.seen.performed:
        simulation.world.violate(f"{rival.process.name} was let in: {rival.describe()}")


def check_logs(simulation: Simulation, folder: RunFolder) -> None:
    """I3: every log file here is a beginning of the node's."""
    for name in simulation.world.nodes:
        for files in simulation.world.attempts(name):
            for file, there in files.logs.items():
                here = _read(folder.log(name, file, files.number))
                if not there.startswith(here):
                    where = f"{name}/{file} of attempt {files.number}"
                    simulation.world.violate(f"the log {where} is not the node's: {here!r:.200}")


def check_replay(simulation: Simulation, coordinator: Coordinator) -> None:
    """I4: the journal leads to the state that the coordinator was in."""
    replayed = replay_journal(coordinator.folder, simulation.request).state
    if coordinator.state is None or isinstance(coordinator.outcome, Killed):
        return
    if replayed != coordinator.state:
        different = [
            f"{slot}: {getattr(replayed, slot)!r:.150} / {getattr(coordinator.state, slot)!r:.150}"
            for slot in type(replayed).__dataclass_fields__
            if getattr(replayed, slot) != getattr(coordinator.state, slot)
        ]
        simulation.world.violate(f"{coordinator.process.name} replayed differs: {different}")


def check_verdict(simulation: Simulation, coordinator: Coordinator, result: Result) -> None:
    """I7, and I2 where the verdict vouches for it."""
    world = simulation.world
    if (result.exit_code is ExitCode.DONE) != (result.status is Status.SUCCEEDED):
        world.violate(f"{result.status} with exit code {int(result.exit_code)}")
    if result.status is Status.STOPPED and not simulation.stops_requested:
        world.violate("stopped, but nobody asked for it")
    if result.status is Status.FAILED and result.failure is None:
        world.violate("failed without a cause")
    for node in result.nodes:
        left = world.remains(node.name)
        if node.state in CLEAN_STATES and left:
            told = [process.comm for process in left]
            world.violate(f"{node.name} is {node.state!r}, but {told} are still there")
    if result.status is Status.SUCCEEDED:
        check_success(simulation, coordinator, result)


def check_success(simulation: Simulation, coordinator: Coordinator, result: Result) -> None:
    """Every rank of the last attempt exited 0, and all that it left is here."""
    world, plan = simulation.world, simulation.plan
    state = coordinator.state
    assert state is not None
    good = 0
    for node in result.nodes:
        files = world.share(node.name).attempts.get(state.attempt)
        if files is None:
            world.violate(f"success, but {node.name} never ran attempt {state.attempt}")
            continue
        outcomes = files.records[-1].get("outcomes", {}) if files.records else {}
        ranks = {k: v for k, v in outcomes.items() if k.startswith("rank-")}
        good += sum(outcome == {"exited": 0} for outcome in ranks.values())
        _check_complete(simulation, coordinator.folder, files)
    wanted = len(plan.nodes) * plan.ranks_per_node
    if good != wanted:
        world.violate(f"success, but {good} of {wanted} ranks exited 0")
    _check_series(simulation, coordinator.folder, state.attempt)


def _check_complete(simulation: Simulation, folder: RunFolder, files: AttemptFiles) -> None:
    for file, there in files.logs.items():
        if _read(folder.log(files.node, file, files.number)) != there:
            simulation.world.violate(f"success, but {files.node}/{file} is not complete here")
    root = folder.node_artifacts(files.node)
    here = {p.name: p.read_bytes() for p in root.glob("*")} if root.is_dir() else {}
    if here != files.outputs:
        simulation.world.violate(f"success, but the artifacts of {files.node} differ: {set(here)}")


def _points(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _read(folder.metrics).splitlines()]


def _check_series(simulation: Simulation, folder: RunFolder, attempt: int) -> None:
    """I1: each point that a rank reported is here exactly once."""
    here = Counter(
        (p["node"], p["rank"], p["name"], p["step"], p["value"])
        for p in _points(folder)
        if p["attempt"] == attempt
    )
    there = Counter(
        (name, int(file[5:-6]), r["name"], r["step"], r["value"])
        for name in simulation.world.nodes
        for files in simulation.world.attempts(name)
        if files.number == attempt
        for file, data in files.reports.items()
        for r in map(json.loads, data.splitlines())
    )
    if here != there:
        simulation.world.violate(f"points: missing {there - here}, too many {here - there}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


# ---- at the end ----------------------------------------------------------------------------------


def at_end(simulation: Simulation) -> None:
    """I2 and I8: nothing of the run is left anywhere, and the other run was not touched."""
    world = simulation.world
    for name, node in world.nodes.items():
        left = [process.comm for process in world.remains(name)]
        agents = [agent.starter for agent in node.agents]
        held = [hold.name for hold in node.locks.holds if hold.run == simulation.request.run_id]
        if left:
            world.violate(f"left on {name} at the end: {left}")
        if held:
            world.violate(f"locks held on {name} at the end: {held} (agents of {agents})")
    world.check_tenants()


def may_fail(simulation: Simulation) -> bool:
    """Whether the job itself, or another run that is still there, explains the failure."""
    state = simulation.current.state
    fails = simulation.plan.script.fails
    failing = any(attempt == (state.attempt if state else 0) for attempt, _, _ in fails)
    began_s = simulation.current.began_s
    tenants = simulation.plan.tenants
    return failing or any(t.until_s is None or t.until_s > began_s for t in tenants)


def facts(simulation: Simulation) -> Facts | None:
    """What two runs of the same job have in common; None without a verdict."""
    coordinator = simulation.current
    result, folder = coordinator.outcome, coordinator.folder
    if not isinstance(result, Result) or coordinator.state is None:
        return None
    attempt = coordinator.state.attempt
    return Facts(
        status=result.status.value,
        cause=(cause.id, cause.node, cause.rank) if (cause := result.failure) else None,
        metrics={name: metric.value for name, metric in result.metrics.items()},
        nodes={node.name: node.state for node in result.nodes},
        logs={
            f"{node}/{path.name}": path.read_bytes()
            for node in simulation.world.nodes
            for path in sorted(folder.node_logs(node, attempt).glob("rank-*"))
        },
        artifacts={
            f"{node}/{path.name}": path.read_bytes()
            for node in simulation.world.nodes
            for path in sorted(folder.node_artifacts(node).glob("*"))
        },
        series={
            (p["name"], p["rank"], p["step"]): p["value"]
            for p in _points(folder)
            if p["step"] is not None
        },
    )


async def stop_remains(simulation: Simulation) -> None:
    """What ``orchestrate stop`` does with ranks that no lease ends."""
    world, coordinator = simulation.world, simulation.current
    if not any(world.remains(name) for name in world.nodes):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisit, "NodeLink", functools.partial(NodeLink, dial=world.dial))
        patch.setattr(revisit, "SystemClock", lambda: coordinator.clock)
        visits = await revisit.stop_run(coordinator.folder)
    for visit in visits:
        if not visit.done:
            world.violate(f"stop could not clean {visit.node}: {visit.detail}")
