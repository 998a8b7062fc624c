"""One whole run on nodes that are models in this process, with all of the coordinator but SSH.

    python3 scripts/bench_lib/programs/memory_run.py 1000

Connect, probe, sync, prepare, the rendezvous, the launch, a watch of 60 s, outputs and sweeps. The
frames of the agents' protocol are written and read as over SSH; time is simulated, so that waiting
costs nothing. One JSON line: processor seconds of the coordinator's callbacks by phase, without
those of the models, and by how much this process's memory grew, which holds the models, too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import re
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from orchestrator.__main__ import COLLECT_AFTER  # noqa: E402
from orchestrator.adapters.agent_client.connect_agent import OwnedChannel  # noqa: E402
from orchestrator.adapters.agent_client.frames import decode_frame, encode_frame  # noqa: E402
from orchestrator.adapters.agent_client.package import agent_package  # noqa: E402
from orchestrator.adapters.store.atomic_files import write_json  # noqa: E402
from orchestrator.adapters.store.layout import Layout  # noqa: E402
from orchestrator.adapters.sync.code_snapshot import Snapshot  # noqa: E402
from orchestrator.adapters.transport.transport import (  # noqa: E402
    ChannelClosed,
    ConnectLimits,
    LineTooLong,
    _run_to_end,
)
from orchestrator.core.base.codec import to_json  # noqa: E402
from orchestrator.core.base.command import Command  # noqa: E402
from orchestrator.core.base.outcome import Exited, Outcome  # noqa: E402
from orchestrator.core.model.inventory import Cluster, NodeSpec, SshEndpoint  # noqa: E402
from orchestrator.core.model.request import RunRequest  # noqa: E402
from orchestrator.core.model.workload import Job, Workload  # noqa: E402
from orchestrator.core.run.events import Event, Launched, NodeConcluded  # noqa: E402
from orchestrator.core.run.state import RunState  # noqa: E402
from orchestrator.core.verdict.result import Result, Status  # noqa: E402
from orchestrator.engine.run import execute  # noqa: E402
from orchestrator.engine.support.context import RunContext  # noqa: E402
from orchestrator.view.progress.plain_lines import PlainView  # noqa: E402
from orchestrator.view.terminal.terminal import LineWriter  # noqa: E402
from tests.simulation import watch  # noqa: E402
from tests.simulation.loop import PROCESS, Process, VirtualLoop  # noqa: E402
from tests.simulation.network import Conversation, Link  # noqa: E402
from tests.simulation.supervisor import Script  # noqa: E402
from tests.simulation.world import CODE, RUN, FakeSnapshot, FakeWorld  # noqa: E402

CHUNK_BYTES = 64 * 1024
STEP_S = 5.0
HEADER = re.compile(rb"'nonce': '([0-9a-f]+)'")


class Stream:
    """Bytes that one side wrote and the other has not read yet."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self._changed = asyncio.Event()

    def put(self, data: bytes) -> None:
        self.data += data
        self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()

    async def more(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class MemoryProcess:
    """The agent's process as a transport shows it, over a :class:`Conversation` of the models."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._input = bytearray()
        self._greeted = False
        self._waiting = False
        self._out = Stream()
        self._errors = asyncio.Event()
        self.node = conversation.link.node.name

    # ---- what the channel of the models asks for -----------------------------------------------

    def receive(self, frame: Mapping[str, Any], payload: bytes) -> None:
        head = {**frame, "payload": len(payload)} if payload else frame
        self._out.put(encode_frame(head) + payload)

    def lose(self, why: str) -> None:
        del why
        self._out.end()
        self._errors.set()

    # ---- what a transport's process promises ---------------------------------------------------

    async def write(self, data: bytes) -> None:
        if self._out.ended:
            raise ChannelClosed("the agent ended")
        self._input += data
        if not self._waiting:  # what a node does with it is the models' time
            self._waiting = True
            self._conversation.link.node.world.call_later(0.0, self._take_input)

    def _take_input(self) -> None:
        self._waiting = False
        if not self._greeted:
            self._greet()
        while self._take_frame():
            continue

    def _greet(self) -> None:
        """The bootstrap is there already; the agent says hello."""
        found = HEADER.search(self._input)
        assert found is not None, "no header in the greeting"
        nonce, node = found[1].decode(), self._conversation.link.node
        self._input.clear()
        self._greeted = True
        hello = {
            "event": "hello",
            "nonce": nonce,
            "agent": agent_package().digest[:16],
            "python": "3.11.7",
            "pid": self._conversation.agent.pid,
            "boot_id": node.boot_id,
            "hostname": node.name,
            "home": "/home/user",
            "workdir": "/home/user/.orchestrate",
        }
        self._out.put(f"{nonce} have\n".encode() + encode_frame(hello))

    def _take_frame(self) -> bool:
        """One whole frame goes to the agent."""
        end = self._input.find(b"\n") + 1
        if not end:
            return False
        frame = decode_frame(bytes(self._input[:end]))
        size = frame.pop("payload", 0)
        if len(self._input) < end + size:
            return False
        payload = bytes(self._input[end : end + size])
        del self._input[: end + size]
        self._conversation.down.send((frame, payload))
        return True

    async def close_stdin(self) -> None:
        self._conversation.close()

    async def read_stdout(self, n: int) -> bytes:
        while not self._out.data and not self._out.ended:
            await self._out.more()
        taken = bytes(self._out.data[:n])
        del self._out.data[:n]
        return taken

    async def read_stderr(self, n: int) -> bytes:
        del n
        await self._errors.wait()
        return b""

    async def read_line(self, limit_bytes: int) -> bytes:
        while not (end := self._out.data.find(b"\n") + 1):
            if self._out.ended:
                return await self.read_stdout(limit_bytes)
            if len(self._out.data) > limit_bytes:
                raise LineTooLong
            await self._out.more()
        line = bytes(self._out.data[:end])
        del self._out.data[:end]
        return line

    async def wait(self, timeout_s: float) -> Outcome:
        del timeout_s
        await self._errors.wait()
        return Exited(0)

    async def kill(self) -> None:
        self.lose("killed")
        self._conversation.close()


class MemoryTransport:
    """A way to one model."""

    def __init__(self, link: Link) -> None:
        self.node = link.node.name
        self._link = link

    async def start(
        self, command: Command, *, timeout_s: float, has_input: bool = True
    ) -> MemoryProcess:
        del command, timeout_s, has_input
        conversation = Conversation(self._link, PROCESS.get())
        conversation.channel = process = MemoryProcess(conversation)  # type: ignore[assignment]
        return process

    run = cast("Callable[..., Any]", _run_to_end)

    def cut(self) -> bool:
        return False

    async def close(self) -> None:
        return


class Coordinator(Process):
    """Says whose a callback is, and nothing else."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        del task


class CountedLoop(VirtualLoop):
    """Counts the processor time of the callbacks that belong to the coordinator."""

    def __init__(self) -> None:
        super().__init__(max_steps=1 << 62, max_time_s=1e9)
        self.set_task_factory(None)
        self.phase = "connect to launch"
        self.own_s: defaultdict[str, float] = defaultdict(float)
        self.models_s = 0.0

    def execute(self, handle: asyncio.Handle) -> None:
        began = time.thread_time()
        super().execute(handle)
        took_s = time.thread_time() - began
        if self.process_of(handle) is None:
            self.models_s += took_s
        else:
            self.own_s[self.phase] += took_s


class WorldClock:
    """The simulated time."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    def wall(self) -> float:
        return self._world.true_wall()


class Phases:
    """An observer that says in which phase what follows is counted."""

    def __init__(self, loop: CountedLoop, nodes: int) -> None:
        self._loop = loop
        self._unlaunched = nodes
        self.events = 0

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del at, state
        self.events += 1
        if isinstance(event, Launched):
            self._unlaunched -= 1
            if not self._unlaunched:
                self._loop.phase = "watch"
        elif isinstance(event, NodeConcluded):
            self._loop.phase = "outputs and sweep"

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        del node, file, chunk

    def on_note(self, text: str) -> None:
        del text

    def close(self, result: Result | None) -> None:
        del result


def request_of(names: list[str]) -> RunRequest:
    specs = tuple(NodeSpec(name=name, ssh=SshEndpoint(host=name)) for name in names)
    workload = Workload(name="job", source="-", folder="/job", entry="job.py")
    cluster = Cluster(name="large", source="large.yaml", nodes=specs)
    return RunRequest(
        run_id=RUN, cluster=cluster, job=Job(workload=workload), code=CODE, entry="job/job.py"
    )


async def perform(world: FakeWorld, home: Path, phases: Phases) -> Result:
    folder = Layout(home).run(RUN)
    folder.create()
    request = request_of(list(world.nodes))
    write_json(folder.request, to_json(request))

    async def dial(spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float) -> OwnedChannel:
        del limits
        transport = MemoryTransport(world.links[spec.name])
        channel = await OwnedChannel.open(transport, spec, timeout_s=timeout_s)
        channel.transport = transport
        return channel

    view = PlainView(LineWriter(io.StringIO()), color=False, verbosity=0, follow=True)
    context = RunContext(
        request=request,
        snapshot=cast("Snapshot", FakeSnapshot()),
        folder=folder,
        observers=[phases, view],
        clock=WorldClock(world),
        dial=dial,
    )
    PROCESS.set(Coordinator("coordinator"))
    return await asyncio.create_task(execute(context))


def measure(nodes: int, watched_s: float, home: Path) -> dict[str, Any]:
    names = [f"n{number:05d}" for number in range(nodes)]
    watch.CHUNK_BYTES = CHUNK_BYTES
    loop = CountedLoop()
    asyncio.set_event_loop(loop)
    before = _memory_bytes()
    script = Script(steps=int(watched_s / STEP_S), step_s=STEP_S, coupled=False, progress=True)
    world = FakeWorld(loop, 1, tuple(names), script)
    phases = Phases(loop, nodes)
    began = time.process_time()
    result = loop.run_until_complete(perform(world, home, phases))
    total_s = time.process_time() - began
    if result.status is not Status.SUCCEEDED:
        raise SystemExit(f"the run ended as {result.status.value}: {result.failure}")
    return {
        "nodes": nodes,
        "events": phases.events,
        "simulated_s": world.now,
        "own_s": dict(loop.own_s),
        "models_s": loop.models_s,
        "total_s": total_s,
        "bytes": _memory_bytes() - before,
    }


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", type=int)
    parser.add_argument("--watched", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args()
    gc.set_threshold(COLLECT_AFTER)
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as home:
        print(json.dumps(measure(options.nodes, options.watched, Path(home))), flush=True)


if __name__ == "__main__":
    main()
