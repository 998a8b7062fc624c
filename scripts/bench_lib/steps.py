"""What an event costs the run's state machine, by the number of nodes."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import TYPE_CHECKING

from .base.report import table
from .base.rounds import say, say_round
from .base.stats import rotated

if TYPE_CHECKING:
    from orchestrator.core.model.facts import Facts
    from orchestrator.core.model.request import RunRequest
    from orchestrator.core.run.events import Event

ROOT = Path(__file__).resolve().parents[2]
WATCHED_S = 60  # each rank reports progress once a second
LARGE, LIMIT_MS = 1000, 6.0
PORT = 29555


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A whole run on ``nodes``: ``events`` that change something cost ``decided_s`` of processor
    time, and the reports of progress between them ``watched_s``.
    """

    nodes: int
    events: int
    decided_s: float
    watched_s: float

    @property
    def event_us(self) -> float:
        return self.decided_s / self.events * 1e6

    @property
    def node_ms(self) -> float:
        return (self.decided_s + self.watched_s) / self.nodes * 1e3

    @property
    def met(self) -> bool:
        return self.nodes < LARGE or self.node_ms <= LIMIT_MS


def measure_steps(
    sizes: Sequence[int], repeats: int, taken: MutableMapping[int, list[Steps]]
) -> None:
    """Adds one replay of each size to ``taken`` for every round; the sizes take turns."""
    sys.path.insert(0, str(ROOT))
    for repeat in range(repeats):
        began = time.monotonic()
        for nodes in rotated(sizes, repeat):
            steps = replay_run(nodes)
            taken.setdefault(nodes, []).append(steps)
            say(f"{nodes} nodes: {steps.event_us:.0f} us an event")
        say_round("steps", repeat + 1, repeats, time.monotonic() - began)


def median_steps(taken: Mapping[int, list[Steps]]) -> list[Steps]:
    """The median of each size, by its time for events."""
    return [_middle(taken[nodes]) for nodes in sorted(taken)]


def _middle(found: Sequence[Steps]) -> Steps:
    return Steps(
        nodes=found[0].nodes,
        events=found[0].events,
        decided_s=median(steps.decided_s for steps in found),
        watched_s=median(steps.watched_s for steps in found),
    )


def replay_run(nodes: int) -> Steps:
    """Give the machine every event of a run that goes well, and ask for the phase as a coordinator
    does.
    """
    from orchestrator.core.run.machine import current_phase, step
    from orchestrator.core.run.state import new_state

    names = [f"n{number:05d}" for number in range(nodes)]
    before, watched, after = list(_launch(names)), list(_watch(names)), list(_end(names))
    state = new_state(_request(names))
    seconds = []
    for events in (before, watched, after):
        began = time.process_time()
        for event in events:
            last = state
            state, _ = step(last, event)
            if state is not last:
                current_phase(state)
        seconds.append(time.process_time() - began)
    assert "Conclude" in state.issued, "the run did not come to its end"
    return Steps(
        nodes=nodes,
        events=len(before) + len(after),
        decided_s=seconds[0] + seconds[2],
        watched_s=seconds[1],
    )


def growth(found: Sequence[Steps]) -> float:
    """The exponent that fits: an event costs in proportion to nodes to this power."""
    sizes = [math.log(steps.nodes) for steps in found]
    return linear_regression(sizes, [math.log(steps.event_us) for steps in found]).slope


def _request(names: Sequence[str]) -> RunRequest:
    from orchestrator.core.model.inventory import Cluster, NodeSpec, SshEndpoint
    from orchestrator.core.model.request import RunRequest
    from orchestrator.core.model.workload import Job, Workload

    specs = tuple(NodeSpec(name=name, ssh=SshEndpoint(host=name)) for name in names)
    workload = Workload(name="job", source="-", folder="/job", entry="job.py")
    cluster = Cluster(name="large", source="large.yaml", nodes=specs)
    return RunRequest(run_id="r1", cluster=cluster, job=Job(workload=workload), entry="job/job.py")


def _facts(name: str) -> Facts:
    from orchestrator.core.model.facts import Facts, Interface

    number = int(name[1:])
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    interface = Interface(name="eth0", up=True, addresses=(address,), speed_mbit=10_000)
    return Facts(
        node=name,
        hostname=name,
        host_id=name,
        cpus=8,
        gpus=(),
        interfaces=(interface,),
        route_address=address,
    )


def _launch(names: Sequence[str]) -> Iterator[Event]:
    from orchestrator.core.run import events
    from orchestrator.core.run.connectivity import Reached, RendezvousOffered

    facts = {name: _facts(name) for name in names}
    modules = {"torch": "2.13.0"}
    head, *others = names
    at_head = (facts[head].route_address,)
    yield events.Begun()
    yield from (events.Connected(node=name, seconds=0.1) for name in names)
    yield from (events.Probed(node=name, facts=facts[name]) for name in names)
    yield from (events.Synced(node=name, digest="d", sent_files=1, sent_bytes=1) for name in names)
    yield from (
        events.Prepared(node=name, interpreter="/bin/python", modules=modules) for name in names
    )
    yield events.Reserved()
    yield RendezvousOffered(node=head, port=PORT)
    for name in others:
        yield Reached(node=name, addresses=at_head, via=(facts[name].route_address,))
    yield from (events.Launched(node=name) for name in names)
    for rank, name in enumerate(names):
        yield events.RankStarted(node=name, rank=rank, pid=1000)


def _watch(names: Sequence[str]) -> Iterator[Event]:
    from orchestrator.core.run.kit_reports import Progressed

    for second in range(WATCHED_S):
        for rank, name in enumerate(names):
            yield Progressed(node=name, rank=rank, done=second, total=WATCHED_S, unit="step")


def _end(names: Sequence[str]) -> Iterator[Event]:
    from orchestrator.core.base.outcome import Exited
    from orchestrator.core.run import events

    well = Exited(0)
    for rank, name in enumerate(names):
        yield events.RankExited(node=name, rank=rank, outcome=well, at=1000.0)
    for name in names:
        yield events.ProcessExited(node=name, label="launcher", outcome=well, at=1000.0)
    yield from (events.NodeConcluded(node=name, clean=True) for name in names)
    yield from (events.Collected(node=name, files=1, bytes=1) for name in names)
    yield from (events.Swept(node=name, clean=True) for name in names)


def steps_markdown(found: Sequence[Steps]) -> str:
    """A row for each number of nodes, and the growth where there are at least two."""
    headings = ("nodes", "events", "an event", "with 60 s of progress, a node", "target")
    text = table(headings, [_row(steps) for steps in found]) + "\n"
    if len(found) > 1:
        text += f"\nAn event costs in proportion to nodes^{growth(found):.2f}.\n"
    return text


def _row(steps: Steps) -> tuple[str, ...]:
    met = f"at most {LIMIT_MS:g} ms: " + ("met" if steps.met else "MISSED")
    return (
        f"{steps.nodes:,}",
        f"{steps.events:,}",
        f"{steps.event_us:.0f} us",
        f"{steps.node_ms:.2f} ms",
        met if steps.nodes >= LARGE else "",
    )
