"""Performs actions on nodes and posts what happened as events. No decisions: those are the
machine's.
"""

from __future__ import annotations

import asyncio

from orchestrator.boundary.supervisor_records import BadRecord
from orchestrator.core.errors import OrchestrateError
from orchestrator.core.events import (
    Action,
    Collect,
    Conclude,
    Connect,
    Failed,
    Launch,
    OfferRendezvous,
    Phase,
    Prepare,
    Probe,
    Reach,
    Stop,
    Sweep,
    Sync,
)
from orchestrator.core.state import RunState
from orchestrator.engine.context import Post, RunContext
from orchestrator.engine.node_hand import NodeHand
from orchestrator.engine.problems import problem_of

PHASE_OF: dict[type[Action], Phase] = {
    Connect: Phase.CONNECT,
    Probe: Phase.PROBE,
    Sync: Phase.SYNC,
    Prepare: Phase.PREPARE,
    OfferRendezvous: Phase.REACH,
    Reach: Phase.REACH,
    Launch: Phase.LAUNCH,
    Stop: Phase.STOP,
    Collect: Phase.COLLECT,
    Sweep: Phase.CLEAN,
}


class Hands:
    """All nodes of one run. Every action is a task; its failure is an event, a bug ends the run."""

    def __init__(self, context: RunContext, post: Post) -> None:
        self._post = post
        self._tasks: set[asyncio.Task[None]] = set()
        workers = context.request.cluster.workers
        self._nodes = {spec.name: NodeHand(spec, context, post) for spec in workers}

    def perform(self, action: Action, state: RunState) -> None:
        """Begin ``action`` (anything but ``Conclude``); its events follow."""
        assert not isinstance(action, Conclude)
        task = asyncio.create_task(self._perform(action, state))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way and give every link back. Bounded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    async def _perform(self, action: Action, state: RunState) -> None:
        assert not isinstance(action, Conclude)
        try:
            await self._dispatch(action, state)
        except (OrchestrateError, OSError, TimeoutError, BadRecord) as error:
            phase = PHASE_OF[type(action)]
            self._post(Failed(node=action.node, phase=phase, problem=problem_of(error)))
        except Exception as error:  # noqa: BLE001 - a bug reaches the loop, not a dead task
            self._post(error)

    async def _dispatch(self, action: Action, state: RunState) -> None:
        assert not isinstance(action, Conclude)
        node = self._nodes[action.node]
        match action:
            case Launch(share=share):
                await node.launch(share, state.port if share.node_rank == 0 else None)
            case Reach(addresses=addresses, port=port):
                await node.reach(addresses, port)
            case Stop(grace_s=grace_s):
                await node.stop(grace_s)
            case _:
                await _PLAIN[type(action)](node)


_PLAIN = {
    Connect: NodeHand.connect,
    Probe: NodeHand.probe,
    Sync: NodeHand.sync,
    Prepare: NodeHand.prepare,
    OfferRendezvous: NodeHand.offer_rendezvous,
    Collect: NodeHand.collect,
    Sweep: NodeHand.sweep,
}
