"""Two runs that want the same GPUs, each with a coordinator of its own: one waits for the other."""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.adapters.store.layout import Layout
from orchestrator.core.verdict.result import Result
from orchestrator.engine.run import execute
from tests.simulation.coordinator import Coordinator, watched_engine
from tests.simulation.loop import virtual_loop
from tests.simulation.simulation import BUDGETS, SimulationPlan, request_of
from tests.simulation.supervisor import Rank, Script
from tests.simulation.world import FakeWorld

NAMES = ("a", "b")
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Ended:
    """How two runs ended, and how often ranks of both were seen on one node at once."""

    outcomes: tuple[str, str]
    together: int


def run_both(home: Path, seed: int, *, wait_s: float | None, interrupt: bool = False) -> Ended:
    """Both begin within a second of each other; one may be interrupted while it waits."""
    plan = SimulationPlan(nodes=NAMES, gpus=1, budgets=BUDGETS, wait_s=wait_s)
    source = random.Random(seed)
    with virtual_loop() as loop, watched_engine():
        world = FakeWorld(loop, seed, NAMES, Script(steps=4), gpus=1)
        runs = []
        for run in ("first", "second"):
            folder = Layout(home / str(seed)).run(run)
            folder.create()
            request = replace(request_of(plan), run_id=run)
            runs.append(Coordinator(world, request, folder, run, execute))

        async def live() -> int:
            for run in runs:
                run.start()
                await asyncio.sleep(source.uniform(0.0, 1.0))
            together = 0
            while not all(run.ended.is_set() for run in runs):
                for node in world.nodes.values():
                    together += len({p.run for p in node.processes if isinstance(p, Rank)}) > 1
                if interrupt and world.now > 2.0 and not runs[1].interrupts.asked:
                    runs[1].interrupts.ask(signal.SIGINT)
                await asyncio.sleep(PAUSE_S)
            return together

        together = loop.run_until_complete(live())
        assert not any(node.processes for node in world.nodes.values())
        assert not any(node.locks.holds for node in world.nodes.values())
        assert world.violations == []
        return Ended(tuple(map(_status, runs)), together)  # type: ignore[arg-type]


def _status(run: Coordinator) -> str:
    assert isinstance(run.outcome, Result), run.describe()
    return run.outcome.status.value


@pytest.mark.parametrize("seed", range(20))
def test_who_waits_gets_its_turn(tmp_path: Path, seed: int) -> None:
    """Neither blocks the other for ever, and their ranks are never on one node together."""
    ended = run_both(tmp_path, seed, wait_s=120.0)

    assert ended == Ended(("succeeded", "succeeded"), 0)


@pytest.mark.parametrize("seed", range(10))
def test_who_does_not_wait_leaves_the_other_alone(tmp_path: Path, seed: int) -> None:
    """At most one is refused; whoever got the GPUs succeeds."""
    ended = run_both(tmp_path, seed, wait_s=None)

    assert ended.together == 0
    assert "succeeded" in ended.outcomes


def test_who_waits_can_be_interrupted(tmp_path: Path) -> None:
    ended = run_both(tmp_path, 1, wait_s=120.0, interrupt=True)

    assert ended == Ended(("succeeded", "stopped"), 0)
