"""What goes wrong, and when: plain data, so that a seed's plan can be printed and repeated."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.engine.support.interrupts import LEAVE_AT
from tests.simulation.node import FakeNode
from tests.simulation.supervisor import Rank

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``kind`` at ``at_s`` on ``node`` (``""``: the coordinator or all); undone after ``for_s``."""

    at_s: float
    kind: str
    node: str = ""
    for_s: float = 0.0
    amount: float = 0.0


def begin(simulation: Simulation, fault: Fault) -> None:
    """The fault happens; its end is scheduled."""
    world = simulation.world
    world.note(f"FAULT {fault}")
    if fault.kind in ON_NODE:
        ON_NODE[fault.kind](world.nodes[fault.node], fault)
    elif fault.kind in ON_COORDINATOR:
        ON_COORDINATOR[fault.kind](simulation, fault)
    else:
        raise ValueError(fault.kind)


# ---- on nodes ------------------------------------------------------------------------------------


def _reboot(node: FakeNode, fault: Fault) -> None:
    if node.up:
        node.world.forget_tenants(node)
        node.crash()
        node.world.call_later(fault.for_s, node.boot)


def _kill_agents(node: FakeNode, fault: Fault) -> None:
    del fault
    for agent in list(node.agents):
        agent.die()


def _kill_supervisor(node: FakeNode, fault: Fault) -> None:
    del fault
    for supervisor in node.supervisors():
        supervisor.kill()


def _ranks(node: FakeNode) -> list[Rank]:
    return [p for p in node.processes if isinstance(p, Rank)]


def _kill_rank(node: FakeNode, fault: Fault) -> None:
    del fault
    for rank in _ranks(node)[:1]:
        rank.kill()


def _freeze_rank(node: FakeNode, fault: Fault) -> None:
    for rank in _ranks(node)[:1]:
        rank.frozen = True
        node.world.call_later(fault.for_s, setattr, rank, "frozen", False)


def _cut(node: FakeNode, fault: Fault) -> None:
    link = node.world.links[node.name]
    link.cut(down=fault.kind != "cut-up", up=fault.kind != "cut-down")
    node.world.call_later(fault.for_s, link.heal)


def _reset(node: FakeNode, fault: Fault) -> None:
    del fault
    node.world.links[node.name].reset()


def _fill_disk(node: FakeNode, fault: Fault) -> None:
    node.disk.full = True
    node.world.call_later(fault.for_s, free_disk, node)


def free_disk(node: FakeNode) -> None:
    node.disk.full = False
    for supervisor in node.supervisors():
        supervisor.flush()


def _slow(node: FakeNode, fault: Fault) -> None:
    node.slow = fault.amount
    node.world.call_later(fault.for_s, setattr, node, "slow", 1.0)


def _delay(node: FakeNode, fault: Fault) -> None:
    link = node.world.links[node.name]
    link.delay_s = fault.amount
    node.world.call_later(fault.for_s, setattr, link, "delay_s", 0.002)


def _duplicate(node: FakeNode, fault: Fault) -> None:
    link = node.world.links[node.name]
    link.duplicates = True
    node.world.call_later(fault.for_s, setattr, link, "duplicates", False)


def _jump(node: FakeNode, fault: Fault) -> None:
    node.offset_s += fault.amount


def _drift(node: FakeNode, fault: Fault) -> None:
    node.rate = fault.amount


def _refuse(node: FakeNode, fault: Fault) -> None:
    node.sshd = False
    node.world.call_later(fault.for_s, setattr, node, "sshd", True)


ON_NODE: dict[str, Callable[[FakeNode, Fault], None]] = {
    "reboot": _reboot,
    "kill-agent": _kill_agents,
    "kill-supervisor": _kill_supervisor,
    "kill-rank": _kill_rank,
    "freeze-rank": _freeze_rank,
    "cut": _cut,
    "cut-down": _cut,
    "cut-up": _cut,
    "reset": _reset,
    "full-disk": _fill_disk,
    "slow": _slow,
    "delay": _delay,
    "duplicate": _duplicate,
    "jump": _jump,
    "rate": _drift,
    "refuse": _refuse,
}


# ---- on the coordinator --------------------------------------------------------------------------


def _kill(simulation: Simulation, fault: Fault) -> None:
    del fault
    simulation.current.kill()


def _freeze(simulation: Simulation, fault: Fault) -> None:
    coordinator = simulation.current
    if coordinator.process.alive and not coordinator.process.frozen:
        simulation.world.loop.freeze(coordinator.process)
        simulation.world.call_later(fault.for_s, simulation.thaw, coordinator)


def _take_over(simulation: Simulation, fault: Fault) -> None:
    """Another machine, with a copy of the run's folder, believes that this one is dead."""
    coordinator = simulation.current
    if coordinator.process.alive and not coordinator.process.frozen:
        simulation.world.loop.freeze(coordinator.process)
        simulation.take_over()
        simulation.world.call_later(fault.for_s, simulation.thaw, coordinator)


def _rival(simulation: Simulation, fault: Fault) -> None:
    del fault
    if simulation.current.process.alive:
        simulation.rival()


def _signal(simulation: Simulation, fault: Fault) -> None:
    """At most three: a fourth would end the process at once."""
    coordinator = simulation.current
    if coordinator.process.alive and len(coordinator.interrupts.asked) < LEAVE_AT:
        coordinator.interrupts.ask(signal.Signals[fault.kind.upper()])
        simulation.stops_requested += 1


def _fill_own_disk(simulation: Simulation, fault: Fault) -> None:
    coordinator = simulation.current
    coordinator.disk_full = True
    simulation.world.call_later(fault.for_s, setattr, coordinator, "disk_full", False)


def _jump_own_clock(simulation: Simulation, fault: Fault) -> None:
    simulation.current.clock.jump_s += fault.amount


ON_COORDINATOR: dict[str, Callable[[Simulation, Fault], None]] = {
    "kill": _kill,
    "freeze": _freeze,
    "take-over": _take_over,
    "rival": _rival,
    "sigint": _signal,
    "sigterm": _signal,
    "full-own-disk": _fill_own_disk,
    "jump-own-clock": _jump_own_clock,
}
