"""The model of the agent answers as the agent does: the same requests, played to both."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError, AgentEvent
from orchestrator.adapters.agent_client.connect_agent import Channel
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
from tests.simulation.loop import virtual_loop
from tests.simulation.supervisor import Script
from tests.simulation.world import FakeWorld

pytestmark = pytest.mark.processes

WAIT_S = 30.0
NODE = "a"
RANK = (
    "echo line; echo weights > {output}/model-0.bin; "
    'echo \'{"type":"metric","name":"final","value":1,"unit":"u","step":null}\' '
    ">> {report}/rank-0.jsonl; sleep 0.6; echo done"
)
WAITING = "exec sleep 60"
# What a node tells of itself beyond what the model knows.
Told = list[tuple[str, Any]]


class Player:
    """Plays requests over a channel and writes down the shape of each answer."""

    def __init__(self, channel: Channel, run: str, lock: str) -> None:
        self.channel = channel
        self.told: Told = []
        self._run = run
        self._lock = [{"name": lock, "mode": "exclusive"}]

    async def ask(self, op: str, *, note: str = "", **fields: Any) -> dict[str, Any]:
        """The answer; its field names and kinds, or the error's id, are noted."""
        title = f"{op} {note}".strip()
        try:
            reply = await self.channel.request(op, fields, timeout_s=WAIT_S)
        except AgentError as error:
            self.told.append((title, error.id))
            return {}
        self.told.append((title, shape(reply.fields)))
        answer = dict(reply.fields)
        if reply.payload and op == "outputs":
            answer["payload"] = json.loads(reply.payload)
            self.told.append((f"{title}: payload", shape(answer["payload"])))
        return answer

    def names(self, number: int = 1, /, **more: Any) -> dict[str, Any]:
        return {"run": self._run, "node": NODE, "attempt": number, **more}

    def launch(self, epoch: int, script: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
        env = {"RANK": "0", "LOCAL_RANK": "0"}
        process = {"label": "rank-0", "rank": 0, "argv": ["bash", "-c", script], "env": env}
        fields = {"lease_s": 60.0, "grace_s": 1.0, "processes": [process], "locks": self._lock}
        return self.names(attempt, epoch=epoch, **fields, **more)

    # ---- the table ------------------------------------------------------------------------------

    async def before_a_run(self) -> None:
        facts = (await self.ask("probe"))["facts"]
        self.told[-1] = ("probe", sorted({"facts", "elapsed_s", "notes"}))
        self.told.append(("facts", {k: kind(facts[k]) for k in FACTS}))
        await self.ask("interpreter", interpreter={"kind": "interpreter", "value": "python3"})
        await self.ask("offer", digest="c0de" * 8)
        port = (await self.ask("listen"))["port"]
        await self.ask("release", port=port)
        await self.ask("release", note="again", port=port)
        await self.ask("dial", targets=[["127.0.0.1", 1]], timeout_s=1.0)
        await self.ask("no such thing")

    async def before_a_launch(self) -> None:
        await self.ask("stop", note="of nothing", **self.names(epoch=2, grace_s=1.0))
        await self.ask("renew", note="of nothing", **self.names(epoch=2, lease_s=5.0))
        await self.ask("outputs", note="of nothing", **self.names())
        fields: dict[str, Any] = {"locks": self._lock, "coordinator": "me@here"}
        await self.ask("reserve", **self.names(epoch=2, **fields))
        await self.ask("reserve", note="again", **self.names(epoch=2, **fields))
        await self.ask("unreserve", **self.names())
        await self.ask("unreserve", note="again", **self.names())
        await self.ask("reserve", note="for the launch", **self.names(epoch=2, **fields))

    async def a_run(self) -> None:
        watch = str((await self.ask("watch", cursors={}, **self.names()))["watch"])
        await self.ask("launch", **self.launch(4, RANK))
        await self.ask("launch", note="again", **self.launch(4, RANK))
        await self.ask("launch", note="of an older epoch", **self.launch(2, RANK))
        await self.ask("launch", note="beside it", **self.launch(4, RANK, attempt=2))
        await self.ask("renew", **self.names(epoch=4, lease_s=60.0))
        await self.ask("renew", note="for ever", **self.names(epoch=4, lease_s=None))
        await self.ask("renew", note="of an older epoch", **self.names(epoch=3, lease_s=9.0))
        await self.follow(watch)
        await self.ask("launch", note="after its end", **self.launch(4, RANK))
        await self.ask("outputs", **self.names())
        fetch: dict[str, Any] = {"path": "model-0.bin", "offset": 0, "length": 4}
        await self.ask("fetch", **self.names(**fetch))
        await self.ask("fetch", note="of nothing", **self.names(**{**fetch, "path": "x"}))
        await self.ask("sweep", **self.names(epoch=5))
        await self.ask("launch", note="after a sweep", **self.launch(4, RANK, attempt=2))

    async def a_stopped_run(self) -> None:
        watch = str((await self.ask("watch", cursors={}, **self.names(3)))["watch"])
        await self.ask("launch", note="to be stopped", **self.launch(6, WAITING, attempt=3))
        await self.ask("stop", **self.names(3, epoch=6, grace_s=0.0))
        await self.follow(watch)

    async def follow(self, watch: str) -> None:
        """To the end of the watch; what each kind of record and frame holds is noted once."""
        kinds: dict[str, Any] = {}
        async for event in self.channel.events():
            if event.watch == watch:
                kinds.setdefault(*_kind_of(event))
            if event.name in ("drained", "supervisor-lost"):
                break
        self.told += sorted((k, v) for k, v in kinds.items() if v is not None)


def _kind_of(event: AgentEvent) -> tuple[str, Any]:
    record = event.fields.get("record")
    if record is None:
        return f"event {event.name}", sorted(event.fields)
    if record["event"] == "killed":  # whether TERM was enough is a matter of luck
        return "record killed", None
    # The last line of a stopped rank may have been written or not.
    return f"record {record['event']}", shape({**record, "last_line": ""})


FACTS = ("hostname", "boot_id", "host_id", "cpus", "interfaces", "route_address", "wall_clock")


def kind(value: object) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def shape(value: object) -> Any:
    """Names and kinds; of a list what its first item is."""
    if isinstance(value, Mapping):
        known = {str(key): shape(item) for key, item in value.items()}
        return {re.sub(r"\d+", "N", key): item for key, item in known.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return value if isinstance(value, bool) else kind(value)


async def play(channel: Channel, rival: Channel) -> Told:
    """Everything, in order; ``rival`` is another channel to the same node."""
    unique = uuid.uuid4().hex[:8]
    player = Player(channel, f"run-{unique}", f"gpu-{unique}")
    await player.before_a_run()
    await player.before_a_launch()
    other = Player(rival, f"rival-{unique}", f"gpu-{unique}")
    busy: dict[str, Any] = {"locks": other._lock, "coordinator": "me@there"}
    await other.ask("reserve", note="by a rival", **other.names(epoch=2, **busy))
    await other.ask("launch", note="by a rival", **other.launch(2, RANK))
    await player.a_run()
    await player.a_stopped_run()
    await player.ask("sweep", note="at last", **player.names(epoch=9))
    return player.told + other.told


async def told_by_the_agent(tmp_path: Path) -> Told:
    spec = NodeSpec(name=NODE, ssh=SshEndpoint(host="localhost"), workdir=str(tmp_path / "work"))
    async with AsyncExitStack() as stack:
        channels = []
        for _ in range(2):
            transport = LocalTransport(NODE)
            stack.push_async_callback(transport.close)
            channel = await AgentChannel.open(transport, spec, timeout_s=WAIT_S)
            stack.push_async_callback(channel.close)
            channels.append(channel)
        return await play(*channels)


def told_by_the_model() -> Told:
    with virtual_loop() as loop:
        world = FakeWorld(loop, 1, (NODE,), Script(steps=2, step_s=0.3), with_torch=False)

        async def run() -> Told:
            link = world.links[NODE]
            return await play(await link.connect(5.0), await link.connect(5.0))

        return loop.run_until_complete(run())


def test_the_model_answers_as_the_agent_does(tmp_path: Path) -> None:
    """Field names, kinds, flags and error ids agree, request by request and record by record."""
    model = dict(told_by_the_model())
    agent = dict(asyncio.run(told_by_the_agent(tmp_path)))

    assert list(model) == list(agent)
    for title, answer in agent.items():
        assert model[title] == answer, title
