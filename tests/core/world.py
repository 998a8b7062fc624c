"""A small obedient world for the state machine: every action is answered by the events it asks for.

``replies`` overrides the answer to an action by its identity, so that a test states only what
differs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.facts import Facts, Gpu, Interface
from orchestrator.core.model.inventory import Cluster, GpuSpec, NodeSpec, SshEndpoint
from orchestrator.core.model.plan import NodePlan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Job, Workload
from orchestrator.core.run.actions import (
    Action,
    Classify,
    Collect,
    Conclude,
    Connect,
    Follow,
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
from orchestrator.core.run.connectivity import (
    Classified,
    FabricProbed,
    Fault,
    LinksProbed,
    Reached,
    RendezvousOffered,
)
from orchestrator.core.run.events import (
    Begun,
    Collected,
    Connected,
    Event,
    Launched,
    NodeConcluded,
    Prepared,
    Probed,
    ProcessExited,
    RankExited,
    RankStarted,
    Reserved,
    Swept,
    Synced,
)
from orchestrator.core.run.machine import action_identity, step
from orchestrator.core.run.state import RunState, new_state

Reply = Callable[[Action], Sequence[Event]]


def node_spec(name: str, gpus: GpuSpec | None = None) -> NodeSpec:
    return NodeSpec(name=name, ssh=SshEndpoint(host=name), gpus=gpus or GpuSpec())


def facts(name: str, *, gpus: int = 0, host_id: str = "", address: str = "") -> Facts:
    ip = address or f"10.0.0.{sum(map(ord, name)) % 250 + 1}"
    return Facts(
        node=name,
        hostname=name,
        host_id=host_id or f"host-{name}",
        cpus=8,
        gpus=tuple(Gpu(index=i, name="NVIDIA H100 80GB HBM3") for i in range(gpus)),
        interfaces=(
            Interface(name="lo", up=True, loopback=True, addresses=("127.0.0.1",)),
            Interface(name="eth0", up=True, addresses=(ip,), speed_mbit=10000),
        ),
        route_address=ip,
    )


def request(
    *names: str, min_nodes: int | None = None, workload: Workload | None = None
) -> RunRequest:
    cluster = Cluster(
        name="test",
        source="test.yaml",
        nodes=tuple(node_spec(name) for name in names),
        min_nodes=min_nodes,
    )
    workload = workload or Workload(name="job", source="-", folder="/job", entry="job.py")
    return RunRequest(run_id="r1", cluster=cluster, job=Job(workload=workload), entry="job/job.py")


def step_twice(state: RunState, event: Event) -> tuple[RunState, tuple[Action, ...]]:
    """A step, which must come to the same when every node is looked at again."""
    after, actions = step(state, event)
    if after is not state:
        assert step(replace(state, terms=None), event) == (after, actions)
    return after, actions


class World:
    """Answers actions until nothing is left to do. ``log`` keeps (event, actions) of every step."""

    def __init__(self, asked: RunRequest, replies: dict[str, Reply] | None = None) -> None:
        self.state: RunState = new_state(asked)
        self.replies = replies or {}
        self.log: list[tuple[Event, tuple[Action, ...]]] = []
        self.performed: list[str] = []
        self.at = 1000.0

    def run(self, *extra: Event) -> RunState:
        """Feed ``Begun``, then answers, then ``extra`` once the world is quiet. At most 1000
        steps.
        """
        queue: deque[Event] = deque([Begun()])
        later = deque(extra)
        for _ in range(1000):
            if not queue:
                if not later:
                    return self.state
                queue.append(later.popleft())
            event = queue.popleft()
            self.state, actions = step_twice(self.state, event)
            self.log.append((event, actions))
            for action in actions:
                self.performed.append(action_identity(action))
                queue.extend(self.answer(action))
        raise AssertionError("the machine does not come to rest")

    @property
    def concluded(self) -> bool:
        return "Conclude" in self.state.issued

    def answer(self, action: Action) -> Sequence[Event]:
        reply = self.replies.get(action_identity(action))
        return reply(action) if reply else self.obey(action)

    def obey(self, action: Action) -> Sequence[Event]:
        match action:
            case Reserve():
                return [Reserved()]
            case Launch(node=node):
                return [Launched(node=node)]
            case Follow(node=node):
                assert self.state.plan is not None
                return self.finish(self.state.plan.node(node))
            case Stop(node=node):
                return [NodeConcluded(node=node, clean=True)]
            case Collect(node=node):
                return [Collected(node=node, files=1, bytes=1)]
            case Sweep(node=node):
                return [Swept(node=node, clean=True)]
            case ProbeLinks():
                return [LinksProbed(reason="", seconds=7.0)]
            case ProbeFabric(rung=rung):
                return [FabricProbed(rung=rung, ok=True, reason="all values are right", seconds=1)]
            case Classify(attempt=attempt):
                return [Classified(attempt=attempt, fault=Fault.OTHER, reason="")]
            case Conclude() | Serve():
                return []
            case _:
                return [_prepare(action)]

    def finish(self, share: NodePlan) -> list[Event]:
        """All ranks of the node start and end well."""
        node, at = share.name, self.at
        return [
            *(RankStarted(node=node, rank=rank, pid=100 + rank) for rank in share.ranks),
            *(RankExited(node=node, rank=rank, outcome=Exited(0), at=at) for rank in share.ranks),
            ProcessExited(node=node, label="launcher", outcome=Exited(0), at=at),
            NodeConcluded(node=node, clean=True),
        ]


def _prepare(
    action: Connect | Probe | Sync | Prepare | OfferRendezvous | Reach,
) -> Event:
    node = action.node
    match action:
        case Connect():
            return Connected(node=node, seconds=0.1)
        case Probe():
            return Probed(node=node, facts=facts(node))
        case Sync():
            return Synced(node=node, digest="d", sent_files=1, sent_bytes=1)
        case Prepare():
            modules = {"torch": "2.13.0"}
            return Prepared(node=node, interpreter="/bin/python", modules=modules)
        case OfferRendezvous():
            return RendezvousOffered(node=node, port=29555)
        case Reach(addresses=addresses):
            own = facts(node).route_address
            return Reached(node=node, addresses=addresses, via=(own,) * len(addresses))
