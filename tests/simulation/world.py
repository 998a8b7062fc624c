"""Everything outside the coordinator: nodes, links, time, other people's runs; and what is seen.

``violations`` collects what must never happen, at the moment that it does.
"""

from __future__ import annotations

import base64
import contextvars
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.adapters.sync.pack import PackPart
from orchestrator.adapters.sync.turns import Turns
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import NodeSpec
from tests.simulation.disk import AttemptFiles, RunShare
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import FakeChannel, Link
from tests.simulation.node import FakeNode, Hold
from tests.simulation.supervisor import Process, Rank, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.simulation.agent import FakeAgent
    from tests.simulation.network import Conversation

RUN = "r1"
OTHER_RUN = "other"
EPOCH_OF_TIME = 1_790_000_000.0
CODE = "c0de" * 8
Watcher = Callable[["Conversation", dict[str, Any], str], None]


class Barrier:
    """Ranks of a coupled job wait for one another, wherever they run."""

    def __init__(self) -> None:
        self._ranks: dict[tuple[str, int], list[Rank]] = defaultdict(list)

    def enter(self, rank: Rank) -> None:
        files = rank.supervisor.files
        self._ranks[files.run, files.number].append(rank)

    def ahead(self, rank: Rank) -> bool:
        """Whether ``rank`` has to wait; for one that died, for ever."""
        files = rank.supervisor.files
        peers = self._ranks[files.run, files.number]
        return any(p.step < rank.step and p.outcome != {"exited": 0} for p in peers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Another run that was here before: a process on ``node``, and a lock in its hands."""

    node: str
    lock: str
    shared: bool
    until_s: float | None = None


class FakeWorld:
    """``with_torch``: the nodes' interpreters have it, so that torchrun is the launcher."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        names: tuple[str, ...],
        script: Script,
        *,
        gpus: int = 0,
        with_torch: bool = True,
    ) -> None:
        self.loop = loop
        self.random = random.Random(seed)
        self.script = script
        self.with_torch = with_torch
        self.barrier = Barrier()
        self.violations: list[str] = []
        self.trace: list[str] | None = None
        self.request_watchers: list[Watcher] = []
        self.launched: list[tuple[str, int, int]] = []
        self.synced: dict[int, int] = {}  # inode of a coordinator's file -> bytes on its disk
        self._context = contextvars.copy_context()
        self._ports = 29500
        self._actors: dict[int, str] = {}
        self._tenants: list[tuple[Process, Tenant]] = []
        self.nodes = {
            name: FakeNode(self, name, number=number, gpus=gpus)
            for number, name in enumerate(names, 1)
        }
        self.links = {name: Link(node) for name, node in self.nodes.items()}

    # ---- time -----------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.loop.time()

    def true_wall(self) -> float:
        return EPOCH_OF_TIME + self.now

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """In the world's own context: it goes on whatever happens to a coordinator."""
        self.loop.call_later(delay_s, callback, *args, context=self._context)

    def draw_delay(self, node: FakeNode) -> float:
        return self.random.uniform(0.001, 0.004) * node.slow

    # ---- what agents ask for --------------------------------------------------------------------

    async def dial(self, spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float) -> FakeChannel:
        """What stands in for ``orchestrator.adapters.agent_client.connect_agent.connect_agent``."""
        return await self.links[spec.name].connect(min(timeout_s, limits.connect_timeout_s))

    def next_port(self) -> int:
        self._ports += 1
        return self._ports

    def listeners(self) -> set[tuple[str, int]]:
        agents = (agent for node in self.nodes.values() for agent in node.agents)
        return {place for agent in agents for place in agent.listening()}

    # ---- what is watched ------------------------------------------------------------------------

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f} {text}")

    def violate(self, text: str) -> None:
        self.note(f"VIOLATION {text}")
        self.violations.append(f"{self.now:.3f} s: {text}")

    def watch_request(self, conversation: Conversation, frame: dict[str, Any], at: str) -> None:
        if self.trace is not None:
            who = conversation.owner.name if conversation.owner else "?"
            self.note(f"{who} {conversation.channel.node} {frame['op']}#{frame['id']} {at}")
        for watcher in self.request_watchers:
            watcher(conversation, frame, at)

    def acted(self, agent: FakeAgent, share: RunShare, epoch: int, op: str) -> None:
        """An agent accepted an operation of ``epoch``: one coordinator each, none after a newer."""
        if share.run != RUN:
            return
        known = self._actors.setdefault(epoch // 2, agent.starter)
        if known != agent.starter:
            self.violate(f"{op} on {share.node}: {known} and {agent.starter} share epoch {epoch}")
        if epoch < share.epoch:
            self.violate(f"{op} on {share.node} by epoch {epoch} after epoch {share.epoch}")

    def launching(self, node: FakeNode, share: RunShare, request: dict[str, Any]) -> None:
        """A supervisor is about to start: at most one for an attempt of a share."""
        attempt = request["attempt"]
        self.note(f"{node.name} starts attempt {attempt} (epoch {request['epoch']})")
        self.launched.append((node.name, attempt, request["epoch"]))
        node.launches[share.run, attempt] += 1
        if node.launches[share.run, attempt] > 1:
            self.violate(f"attempt {attempt} was launched twice on {node.name}")
        if any(s.run_share is share for s in node.supervisors(share.run)):
            self.violate(f"attempt {attempt} on {node.name} starts beside another one")
        self._check_locks(node, share, request)

    def _check_locks(self, node: FakeNode, share: RunShare, request: dict[str, Any]) -> None:
        held = {h.name for h in node.locks.holds if (h.run, h.node) == (share.run, share.node)}
        for lock in request.get("locks") or ():
            if lock["name"] not in held:
                self.violate(f"{node.name} starts attempt {request['attempt']} without its lock")

    # ---- other runs -----------------------------------------------------------------------------

    def add_tenant(self, tenant: Tenant) -> None:
        node = self.nodes[tenant.node]
        process = Process(node, OTHER_RUN, tenant.node, "tenant")
        about = {"run": OTHER_RUN, "node": tenant.node, "user": "else", "pid": process.pid}
        about.update(since=node.wall(), coordinator="else@where")
        node.locks.take(Hold(tenant.lock, tenant.shared, process, OTHER_RUN, tenant.node, about))
        self._tenants.append((process, tenant))
        if tenant.until_s is not None:
            self.call_later(tenant.until_s, self._end_tenant, process, tenant)

    def _end_tenant(self, process: Process, tenant: Tenant) -> None:
        if (process, tenant) not in self._tenants:
            return
        self.check_tenants()
        self._tenants.remove((process, tenant))
        process.kill()
        process.node.locks.release(process)

    def forget_tenants(self, node: FakeNode) -> None:
        """The node loses its power, and they theirs."""
        self._tenants = [(p, t) for p, t in self._tenants if t.node != node.name]

    def check_tenants(self) -> None:
        for process, tenant in self._tenants:
            holds = [h for h in process.node.locks.holds if h.owner is process]
            if not process.alive or not holds:
                self.violate(f"the other run on {tenant.node} was disturbed")

    # ---- looking at the nodes -------------------------------------------------------------------

    def share(self, name: str) -> RunShare:
        return self.nodes[name].disk.share(RUN, name)

    def attempts(self, name: str) -> list[AttemptFiles]:
        return list(self.share(name).attempts.values())

    def remains(self, name: str) -> list[Process]:
        """Living processes of the run on a node."""
        return self.nodes[name].marked(RUN, name)

    @property
    def everything_missing(self) -> str:
        """The bitmap with which a node asks for the one content that the code has."""
        return base64.b64encode(zlib.compress(b"\x01")).decode()


class FakeSnapshot:
    """Code of a single file, as ``Snapshot`` shows it."""

    digest = CODE
    offer: ClassVar[Mapping[str, object]] = {"digest": CODE, "bases": []}
    packed_manifest = zlib.compress(b"manifest")

    def __init__(self) -> None:
        self.turns = Turns()

    @property
    def contents(self) -> FakeContents:
        return FakeContents()


class FakeContents:
    """The file's content, and the pack of it."""

    blobs: ClassVar[Mapping[str, int]] = {"d1": 5}
    contents = 1

    @asynccontextmanager
    async def pack(self, missing: bytes) -> AsyncIterator[FakeContents]:
        assert missing == b"\x01"
        yield self

    def __len__(self) -> int:
        return 1

    async def part(self, number: int) -> PackPart:
        assert number == 0
        return PackPart(b"hello", False)
