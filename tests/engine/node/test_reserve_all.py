"""Whoever does not get all locks keeps none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.model.plan import Lock
from orchestrator.core.run.events import Occupied, Reserved
from orchestrator.engine.node.reserve_all import reserve_nodes
from orchestrator.engine.support.context import RunContext
from tests.core.world import World, request

TAKEN = Occupied(node="b", holder="run other")


class Node:
    """A node whose locks are free, taken or out of reach."""

    def __init__(self, answer: Occupied | OSError | None = None) -> None:
        self.holds = False
        self._answer = answer

    async def reserve_locks(self, locks: Sequence[Lock]) -> Occupied | None:
        del locks
        if isinstance(self._answer, OSError):
            raise self._answer
        self.holds = self._answer is None
        return self._answer

    async def release_locks(self) -> None:
        self.holds = False


async def reserved(tmp_path: Path, **nodes: Node) -> Reserved | Occupied:
    world = World(request(*nodes), {"Reserve": lambda _: []})
    world.run()
    folder = RunFolder(tmp_path / "r1")
    context = RunContext(request=world.state.request, snapshot=None, folder=folder, observers=[])
    return await reserve_nodes(nodes, world.state, context)  # type: ignore[arg-type]


async def test_all_are_taken(tmp_path: Path) -> None:
    nodes = {name: Node() for name in "abc"}
    assert await reserved(tmp_path, **nodes) == Reserved()
    assert all(node.holds for node in nodes.values())


async def test_what_was_got_is_given_back(tmp_path: Path) -> None:
    """Two runs that each have what the other one wants would wait for each other for ever."""
    nodes = {"a": Node(), "b": Node(TAKEN), "c": Node()}
    assert await reserved(tmp_path, **nodes) == TAKEN
    assert not any(node.holds for node in nodes.values())


async def test_a_node_out_of_reach_frees_the_others(tmp_path: Path) -> None:
    nodes = {"a": Node(), "b": Node(OSError("no route")), "c": Node()}
    with pytest.raises(OSError, match="no route"):
        await reserved(tmp_path, **nodes)
    assert not any(node.holds for node in nodes.values())
