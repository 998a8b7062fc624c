"""What a node hears, a power cut of the coordinator does not take back."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.run.state import EPOCH_STEP, FIRST_EPOCH
from tests.simulation.coordinator import CrashPoint, watched_engine
from tests.simulation.loop import virtual_loop
from tests.simulation.simulation import Simulation, SimulationPlan, _home
from tests.simulation.world import FakeWorld

PLAN = SimulationPlan(crashes=(CrashPoint("answered", 20),))


def on_disk(world: FakeWorld, folder: RunFolder) -> list[dict[str, Any]]:
    """The journaled events that a power cut would leave."""
    size = world.synced.get(folder.journal.stat().st_ino, 0)
    lines = folder.journal.read_bytes()[:size].splitlines()
    return [json.loads(line)["event"] for line in lines]


def test_nobody_acts_on_what_the_disk_does_not_have_yet() -> None:
    """The epoch that a node is told of, and the reservation before a launch, are synced: or whoever
    takes over after a power cut would take the same epoch, or plan a job anew that already runs.
    """
    told: set[tuple[str, int]] = set()
    too_early: list[str] = []
    with virtual_loop() as loop, _home() as home, watched_engine():
        simulation = Simulation(loop, PLAN, home, trace=False)

        def look(_: object, frame: dict[str, Any], at: str) -> None:
            if at != "sent" or "epoch" not in frame:
                return
            events = on_disk(simulation.world, simulation.current.folder)
            kinds = {event["type"] for event in events}
            epochs = {event["epoch"] for event in events if event["type"] == "Resumed"}
            epochs |= {FIRST_EPOCH} if "Begun" in kinds else set()
            op, epoch = frame["op"], frame["epoch"]
            told.add((op, epoch))
            if epoch // EPOCH_STEP * EPOCH_STEP not in epochs:
                too_early.append(f"{op} of epoch {epoch}")
            if op == "launch" and "Reserved" not in kinds:
                too_early.append(f"{op} before its reservation")

        simulation.world.request_watchers.append(look)
        loop.run_until_complete(simulation.run())
    assert {("launch", FIRST_EPOCH), ("sweep", FIRST_EPOCH + EPOCH_STEP + 1)} <= told
    assert too_early == []
