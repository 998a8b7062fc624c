"""Connections between all nodes: every agent listens, every agent dials its peers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.fabric.connection_matrix import (
    Matrix,
    failed_links,
    judge_matrix,
    peers_to_dial,
)
from orchestrator.core.fabric.fabric_verdict import FabricVerdict, Link
from orchestrator.core.fabric.probe_world import probe_addresses
from orchestrator.core.run.connectivity import LinksProbed
from orchestrator.core.run.rendezvous import nearest_miss
from orchestrator.core.run.state import RunState
from orchestrator.engine.node.trial_node import TrialPorts
from orchestrator.engine.support.context import RunContext
from orchestrator.parsing.replies.reach_records import TcpResult

# What is lost once is sent again after 1 s and 3 s by the kernel.
FIRST_DIAL_S = 3.0
SECOND_DIAL_S = 4.0
TRIES = 2

# Where each node may be dialled, best first: one address that answers is a connection.
Places = Mapping[str, Sequence[str]]


async def probe_mesh(
    hands: Mapping[str, TrialPorts], at: Mapping[str, str]
) -> FabricVerdict | None:
    """Who cannot reach whom, twice in a row; None if everybody reaches everybody.

    Raises as links do.
    """
    return judge_matrix(list(hands), await try_twice(hands, _one_each(at)))


async def probe_links(
    nodes: Mapping[str, TrialPorts], state: RunState, context: RunContext
) -> LinksProbed:
    """Why nodes do not reach the head: who reaches whom. Raises as links do."""
    plan = state.require_plan()
    began = context.clock.monotonic()
    context.note(f"{plan.head.name} is not reached by all: every node tries every other one")
    planned = replace(plan, rendezvous=nearest_miss(state, plan))
    hands = {share.name: nodes[share.name] for share in plan.nodes}
    found = await probe_mesh(hands, probe_addresses(planned, state.planned_facts()))
    seconds = round(context.clock.monotonic() - began, 3)
    if found is None:
        return LinksProbed(reason="", seconds=seconds)
    return LinksProbed(
        reason=found.sentence, seconds=seconds, culprits=found.culprits, links=found.links
    )


async def try_twice(hands: Mapping[str, TrialPorts], at: Places) -> Matrix:
    """Only what fails twice in a row has failed."""
    names = list(hands)
    found: dict[Link, TcpResult] = {}
    for _ in range(TRIES):
        ports = await _open_listeners(hands)
        try:
            found = await dial_mesh(hands, at, ports, peers_to_dial(names), FIRST_DIAL_S)
            failed = failed_links(_make_matrix(found))
            again = await dial_mesh(hands, at, ports, _by_start(failed), SECOND_DIAL_S)
        finally:
            kept = await _close_listeners(hands, ports)
        found |= again
        # Refused by an agent that is not the one that listened: its link was made anew meanwhile.
        if not any(result.refused and not kept[end] for (_, end), result in found.items()):
            break
    return _make_matrix(found)


async def broken_links(nodes: Mapping[str, TrialPorts], state: RunState) -> tuple[Link, ...]:
    """(from, to) of the plan's nodes that cannot open a connection. Raises what links raise."""
    plan = state.require_plan()
    if plan.rendezvous is None:
        return ()
    hands = {share.name: nodes[share.name] for share in plan.nodes}
    return tuple(
        failed_links(
            await try_twice(hands, _one_each(probe_addresses(plan, state.planned_facts())))
        )
    )


async def dial_mesh(
    hands: Mapping[str, TrialPorts],
    at: Places,
    ports: Mapping[str, int],
    wanted: Mapping[str, Sequence[str]],
    timeout_s: float,
) -> dict[Link, TcpResult]:
    """Every node in ``wanted`` dials its list, all at once."""

    async def one(start: str, ends: Sequence[str]) -> dict[Link, TcpResult]:
        targets = [(end, address) for end in ends for address in at[end]]
        dialled = [(address, ports[end]) for end, address in targets]
        results = await hands[start].dial(dialled, timeout_s)
        found: dict[Link, TcpResult] = {}
        for (end, _), result in zip(targets, results, strict=True):
            known = found.setdefault((start, end), result)
            found[start, end] = known if known.ok else result if result.ok else known
        return found

    parts = await asyncio.gather(*(one(start, ends) for start, ends in wanted.items() if ends))
    return {link: result for part in parts for link, result in part.items()}


def _one_each(at: Mapping[str, str]) -> Places:
    return {name: (address,) for name, address in at.items()}


def _make_matrix(found: Mapping[Link, TcpResult]) -> Matrix:
    return {link: "" if result.ok else result.error for link, result in found.items()}


def _by_start(links: Iterable[Link]) -> dict[str, list[str]]:
    ends: dict[str, list[str]] = {}
    for start, end in links:
        ends.setdefault(start, []).append(end)
    return ends


async def _open_listeners(hands: Mapping[str, TrialPorts]) -> dict[str, int]:
    ports = await asyncio.gather(*(hand.listen() for hand in hands.values()))
    return dict(zip(hands, ports, strict=True))


async def _close_listeners(
    hands: Mapping[str, TrialPorts], ports: Mapping[str, int]
) -> dict[str, bool]:
    kept = await asyncio.gather(*(hands[name].release(port) for name, port in ports.items()))
    return dict(zip(ports, kept, strict=True))
