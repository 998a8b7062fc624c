"""Performs actions on nodes and posts what happened as events. No decisions: those are the
machine's.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from contextlib import suppress

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.run.actions import (
    Action,
    Classify,
    Clear,
    Collect,
    Conclude,
    Connect,
    Follow,
    Inspect,
    Launch,
    OfferRendezvous,
    Prepare,
    Probe,
    ProbeFabric,
    ProbeLinks,
    Reach,
    Reserve,
    Serve,
    Stop,
    Sweep,
    Sync,
)
from orchestrator.core.run.events import Event, Failed, Phase
from orchestrator.core.run.state import RunState
from orchestrator.engine.network.classify import classify_failure
from orchestrator.engine.network.fabric_probe import probe_fabric
from orchestrator.engine.network.mesh import probe_links
from orchestrator.engine.node.handle import NodeHandle
from orchestrator.engine.node.node_session import FENCED
from orchestrator.engine.node.node_setup import NodeSetup
from orchestrator.engine.node.reserve_all import reserve_nodes
from orchestrator.engine.node.trial_node import TrialNode
from orchestrator.engine.sharing.diloco import average
from orchestrator.engine.sharing.rank_exchange import Exchange, RankFeeds
from orchestrator.engine.support.context import Post, RunContext
from orchestrator.engine.support.problems import disk_problem, problem_of, superseded_error
from orchestrator.parsing.replies.supervisor_records import BadRecord

PHASE_OF: dict[type[Action], Phase] = {
    Connect: Phase.CONNECT,
    Probe: Phase.PROBE,
    Clear: Phase.PREPARE,
    Sync: Phase.SYNC,
    Prepare: Phase.PREPARE,
    OfferRendezvous: Phase.REACH,
    Reach: Phase.REACH,
    Reserve: Phase.RESERVE,
    ProbeLinks: Phase.REACH,
    ProbeFabric: Phase.FABRIC,
    Serve: Phase.WATCH,
    Classify: Phase.CLASSIFY,
    Launch: Phase.LAUNCH,
    Follow: Phase.WATCH,
    Inspect: Phase.WATCH,
    Stop: Phase.STOP,
    Collect: Phase.COLLECT,
    Sweep: Phase.CLEAN,
}

SetupAction = Connect | Probe | Clear | Sync | Prepare
PlannedAction = OfferRendezvous | Reach | Launch | Stop | Inspect | Follow | Collect | Sweep


async def divide(exchange: Exchange, context: RunContext, post: Post) -> None:
    """As ``sample_scheduler``, which no other runs need, has it."""
    from orchestrator.engine.sharing import sample_scheduler

    await sample_scheduler.divide(exchange, context, post)


SERVICES = {CommMode.LEASES: divide, CommMode.LOCAL_ROUNDS: average}

LET_GO_WITHIN_S = 10.0
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class ActionRunner:
    """All nodes of one run, attempt by attempt.

    When another attempt begins, whatever the last one left unfinished ends, unheard.
    """

    def __init__(self, context: RunContext, post: Post) -> None:
        self._context = context
        self._post = post
        self._present: AttemptRunner | None = None
        self._closing: list[asyncio.Task[None]] = []

    def perform(self, action: Action, state: RunState) -> None:
        """Begin ``action`` (anything but ``Conclude``); its events follow."""
        present = self._present
        if present is None or present.epoch != state.epoch:
            if present is not None:
                self._closing.append(asyncio.create_task(present.close()))
            present = self._present = AttemptRunner(self._context, self._post, state)
        present.begin(action, state)

    def see(self, state: RunState) -> None:
        """The run moved on: services that feed the ranks look at its nodes."""
        if self._present is not None and self._present.epoch == state.epoch:
            self._present.exchange.see(state)

    @property
    def trials(self) -> Mapping[str, TrialNode]:
        """The nodes of the present attempt, as those that can dial each other."""
        return self._present.trials if self._present is not None else {}

    def broken(self) -> set[str]:
        """The nodes whose link is gone for now."""
        return self._present.broken() if self._present is not None else set()

    async def detach(self, state: RunState) -> None:
        """Let the ranks end that nobody can coordinate any more. Bounded, never raises."""
        if self._present is not None:
            await self._present.detach(state)

    async def close(self) -> None:
        """End what is under way and give every link back. Bounded."""
        if self._present is not None:
            await self._present.close()
        await asyncio.gather(*self._closing)


class AttemptRunner:
    """One attempt. Every action is a task; its failure is an event, a bug ends the run."""

    def __init__(self, context: RunContext, post: Post, state: RunState) -> None:
        self.epoch = state.epoch  # every attempt has one of its own
        self._context = context
        self._listener: Post | None = post
        self._tasks: set[asyncio.Task[None]] = set()
        workers = state.request.cluster.workers
        self._nodes: dict[str, NodeHandle] = {}
        feeds: dict[str, RankFeeds] = {}
        self.exchange = Exchange(context.folder, feeds, state)
        heard = self.exchange.changed.set
        for spec in workers:
            node = NodeHandle.begin(spec, context, state, self._tell, heard)
            self._nodes[spec.name], feeds[spec.name] = node, RankFeeds(node.session)
        self.trials = {name: node.trials for name, node in self._nodes.items()}

    def begin(self, action: Action, state: RunState) -> None:
        """Perform ``action`` in a task of its own."""
        task = asyncio.create_task(self._perform(action, state))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def broken(self) -> set[str]:
        return {name for name, node in self._nodes.items() if node.broken}

    async def detach(self, state: RunState) -> None:
        """Every node that may have ranks, within their grace and ``LET_GO_WITHIN_S``."""
        self._listener = None
        may = [name for name, node in state.planned() if not (node.concluded or node.lost)]
        telling = asyncio.gather(
            *(self._nodes[n].follower.detach_ranks() for n in may), return_exceptions=True
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(state.request.budgets.grace_s + LET_GO_WITHIN_S):
                await telling

    async def close(self) -> None:
        """Say nothing more, end what is under way, give every link back. Bounded."""
        self._listener = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    def _tell(self, event: Event | BaseException | None) -> None:
        if self._listener is not None and event is not None:
            self._listener(event)

    async def _perform(self, action: Action, state: RunState) -> None:
        try:
            await self._dispatch(action, state)
        except (OrchestrateError, OSError, TimeoutError, BadRecord) as error:
            self._tell(self._failure(action, error))
        except Exception as error:  # noqa: BLE001 - a bug reaches the loop, not a dead task
            self._tell(error)

    def _failure(self, action: Action, error: Exception) -> Event | BaseException | None:
        phase = PHASE_OF[type(action)]
        node = getattr(action, "node", "")
        if isinstance(error, OrchestrateError) and error.id == FENCED:
            # What our own sweep overtook was asked for in vain, by us.
            ours = node in self._nodes and self._nodes[node].follower.sweeping
            return None if ours else superseded_error(self._context.request.run_id, error)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return Failed(node=node, phase=phase, problem=disk_problem(self._context.folder, error))
        return Failed(node=node, phase=phase, problem=problem_of(error))

    async def _dispatch(self, action: Action, state: RunState) -> None:
        match action:
            case Conclude():
                raise AssertionError("the loop itself concludes")
            case Reserve():
                launchers = {name: node.launcher for name, node in self._nodes.items()}
                self._tell(await reserve_nodes(launchers, state, self._context))
            case ProbeLinks():
                self._tell(await probe_links(self.trials, state, self._context))
            case ProbeFabric():
                self._tell(await probe_fabric(self.trials, state, self._context))
            case Serve(rung=rung):
                await SERVICES[rung](self.exchange, self._context, self._tell)
            case Classify():
                self._tell(await classify_failure(self.trials, state, self._context))
            case Connect() | Probe() | Clear() | Sync() | Prepare():
                await self._set_up(action, self._nodes[action.node].setup)
            case _:
                await self._dispatch_planned(action, state, self._nodes[action.node])

    async def _set_up(self, action: SetupAction, node: NodeSetup) -> None:
        match action:
            case Connect():
                await node.connect_agent()
            case Probe():
                await node.probe_facts()
            case Clear():
                await node.clear_attempts()
            case Sync():
                await node.push_code(self._context.require_snapshot())
            case Prepare():
                await node.prepare_python()

    async def _dispatch_planned(
        self, action: PlannedAction, state: RunState, node: NodeHandle
    ) -> None:
        match action:
            case OfferRendezvous():
                await node.trials.offer_rendezvous()
            case Reach(addresses=addresses, port=port):
                await node.trials.reach_head(addresses, port)
            case Launch(share=share):
                await node.launcher.launch_ranks(
                    share,
                    state.port if share.node_rank == 0 else None,
                    independent=state.require_plan().rung == CommMode.LEASES,
                    facts=state.nodes[action.node].facts,
                )
            case Stop(grace_s=grace_s):
                await node.launcher.stop_ranks(grace_s)
            case Inspect(stall=stall):
                self._tell(await node.follower.inspect_ranks(stall))
            case Follow():
                await node.follower.follow_ranks(state)
            case Collect():
                await node.follower.collect_attempt(state)
            case Sweep():
                await node.follower.sweep_attempt(state)
