"""Code on its way through real agents: complete everywhere, whatever is cut on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import (
    AgentChannel,
    AgentError,
    ChannelLost,
    Payload,
    Reply,
)
from orchestrator.adapters.sync import pack as pack_module
from orchestrator.adapters.sync.code_snapshot import Snapshot, TreePart, take_snapshot
from orchestrator.adapters.sync.push import Sent, push_snapshot
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.core.base.errors import DeadlineError, OrchestrateError, PreflightError
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
from tests.contracts.sync.trees import contents, write_tree
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

LIMIT_S = 60.0
FILES = {
    "a.py": b"print(1)\n",
    "d/empty": b"",
    "big.bin": os.urandom(300_000),
    **{f"many/f{i}": b"content %d\n" % i * 20 for i in range(300)},
}
Open = Callable[[str], Awaitable[AgentChannel]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 20 kB, so that a few hundred kilobytes are many of them."""
    monkeypatch.setattr(pack_module, "PART_BYTES", 20_000)


@pytest.fixture
async def open_node(tmp_path: Path) -> AsyncIterator[Open]:
    """A channel to the agent of the node of that name; each has its own work directory."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str) -> AgentChannel:
            endpoint = SshEndpoint(host="localhost")
            spec = NodeSpec(name=name, ssh=endpoint, workdir=str(tmp_path / name))
            transport = LocalTransport(name)
            stack.push_async_callback(transport.close)
            channel = await AgentChannel.open(transport, spec, timeout_s=scaled(20))
            stack.push_async_callback(channel.close)
            return channel

        yield open_one


def taken(tmp_path: Path, files: dict[str, bytes] | None = None) -> Snapshot:
    folder = write_tree(tmp_path / "code", FILES if files is None else files)
    return take_snapshot([TreePart(source=folder)], tmp_path / "cache")


def held(tmp_path: Path, node: str, snapshot: Snapshot) -> dict[str, bytes | str] | None:
    """The snapshot's files on ``node``; None if it is not there."""
    path = tmp_path / node / "node" / "snapshots" / snapshot.digest
    return contents(path) if path.is_dir() else None


class Recorder:
    """A channel that counts requests, and may act before one of them."""

    def __init__(self, channel: AgentChannel, before: Callable[[int], None] | None = None) -> None:
        self.node = channel.node
        self.ops: list[str] = []
        self._channel = channel
        self._before = before

    async def request(
        self, op: str, arguments: Any = None, *, timeout_s: float, payload: bytes | Payload = b""
    ) -> Reply:
        self.ops.append(op)
        if self._before:
            self._before(len(self.ops))
        return await self._channel.request(op, arguments, timeout_s=timeout_s, payload=payload)


async def test_every_node_gets_the_code_and_an_unchanged_tree_costs_one_request(
    tmp_path: Path, open_node: Open
) -> None:
    """Cold, unchanged, one file changed: each node ends with the tree, sending only what lacks."""
    channels = [Recorder(await open_node(f"n{i}")) for i in range(3)]
    first = taken(tmp_path)

    sent = await asyncio.gather(
        *(push_snapshot(c, first, timeout_s=scaled(LIMIT_S)) for c in channels)
    )

    assert [s.files for s in sent] == [len(FILES)] * 3
    assert all(held(tmp_path, c.node, first) == FILES for c in channels)
    for channel in channels:
        channel.ops.clear()
        assert await push_snapshot(channel, taken(tmp_path), timeout_s=scaled(LIMIT_S)) == Sent()
        assert channel.ops == ["offer"]

    changed = {**FILES, "a.py": b"print(2)\n"}
    second = taken(tmp_path, changed)
    for channel in channels:
        channel.ops.clear()
        done = await push_snapshot(channel, second, timeout_s=scaled(LIMIT_S))
        assert done.files == 1
        assert done.bytes < 20_000
        assert channel.ops == ["offer", "offer", "push"]
        assert held(tmp_path, channel.node, second) == changed
        assert held(tmp_path, channel.node, first) == FILES


async def test_nodes_that_lack_the_same_share_one_compression(
    tmp_path: Path, open_node: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is built once for all nodes, and its spool is gone afterwards."""
    built = []
    real = pack_module._build_part

    def count(group: Any) -> pack_module.PackPart:
        built.append(len(group.pieces))
        return real(group)

    monkeypatch.setattr(pack_module, "_build_part", count)
    snapshot = taken(tmp_path)
    channels = [await open_node(f"n{i}") for i in range(3)]

    await asyncio.gather(*(push_snapshot(c, snapshot, timeout_s=scaled(LIMIT_S)) for c in channels))

    every = (1 << len(snapshot.manifest.blobs())) - 1
    bits = every.to_bytes((every.bit_length() + 7) // 8, "little")
    async with snapshot.contents.pack(bits) as pack:
        assert 10 < len(built) == len(pack)
    assert all(held(tmp_path, c.node, snapshot) == FILES for c in channels)


async def test_a_killed_agent_leaves_the_old_code_and_a_retry_goes_on(
    tmp_path: Path, open_node: Open
) -> None:
    """SIGKILL before each of several parts: old tree intact, new one absent, then complete."""
    old = taken(tmp_path, {"a.py": b"old"})
    await push_snapshot(await open_node("n1"), old, timeout_s=scaled(LIMIT_S))
    new = taken(tmp_path)
    for request in (3, 5, 8, 12):
        channel = await open_node("n1")
        pid = channel.hello.pid

        def strike(count: int, request: int = request, pid: int = pid) -> None:
            if count == request:
                os.kill(pid, signal.SIGKILL)

        with pytest.raises(ChannelLost):
            await push_snapshot(Recorder(channel, strike), new, timeout_s=scaled(LIMIT_S))
        assert held(tmp_path, "n1", new) is None
        assert held(tmp_path, "n1", old) == {"a.py": b"old"}

    sent = await push_snapshot(await open_node("n1"), new, timeout_s=scaled(LIMIT_S))

    assert held(tmp_path, "n1", new) == FILES
    assert 0 < sent.files < len(FILES)


async def test_two_coordinators_push_to_one_node_at_once(tmp_path: Path, open_node: Open) -> None:
    """The same code and different code over several channels to one work directory."""
    first = taken(tmp_path)
    other = write_tree(tmp_path / "other", {**FILES, "a.py": b"other"})
    second = take_snapshot([TreePart(source=other)], tmp_path / "cache")
    jobs = [(await open_node("n1"), s) for s in (first, first, second, second)]

    await asyncio.gather(*(push_snapshot(c, s, timeout_s=scaled(LIMIT_S)) for c, s in jobs))

    assert held(tmp_path, "n1", first) == FILES
    assert held(tmp_path, "n1", second) == {**FILES, "a.py": b"other"}


async def test_nodes_that_share_a_file_system_are_synced_once(
    tmp_path: Path, open_node: Open
) -> None:
    """Two agents of one work directory: to the second one nothing is sent."""
    snapshot = taken(tmp_path)
    channels = [Recorder(await open_node("n1")) for _ in range(2)]

    sent = await asyncio.gather(
        *(push_snapshot(c, snapshot, timeout_s=scaled(LIMIT_S)) for c in channels)
    )

    assert sorted(s.files for s in sent) == [0, len(FILES)]
    assert min((c.ops for c in channels), key=len) == ["offer", "offer"]
    assert held(tmp_path, "n1", snapshot) == FILES


@pytest.mark.parametrize("change", ["rewrite", "truncate", "delete"])
async def test_a_file_that_changes_meanwhile_is_named(
    tmp_path: Path, open_node: Open, change: str
) -> None:
    """Nodes never get a mixture: the sync fails, names the file, and the channel stays usable."""
    snapshot = taken(tmp_path)
    victim = tmp_path / "code" / "many" / "f250"
    if change == "rewrite":
        victim.write_bytes(victim.read_bytes().replace(b"content", b"CONTENT"))
    elif change == "truncate":
        victim.write_bytes(b"c")
    else:
        victim.unlink()
    channel = await open_node("n1")

    with pytest.raises(PreflightError) as caught:
        await push_snapshot(channel, snapshot, timeout_s=scaled(LIMIT_S))

    assert caught.value.id == "OR-SYNC-003"
    assert caught.value.where.endswith("f250")
    assert held(tmp_path, "n1", snapshot) is None
    await push_snapshot(channel, taken(tmp_path, FILES), timeout_s=scaled(LIMIT_S))


async def test_check_repairs_what_a_job_edited(tmp_path: Path, open_node: Open) -> None:
    """With ``check``, a file that a job changed in place is found and sent again."""
    snapshot = taken(tmp_path)
    channel = await open_node("n1")
    await push_snapshot(channel, snapshot, timeout_s=scaled(LIMIT_S))
    victim = tmp_path / "n1/node/snapshots" / snapshot.digest / "a.py"
    victim.chmod(0o644)
    victim.write_bytes(b"edited")

    sent = await push_snapshot(channel, snapshot, timeout_s=scaled(LIMIT_S), check=True)

    assert sent.files == 1
    assert held(tmp_path, "n1", snapshot) == FILES


async def test_an_offer_travels_with_the_start_of_the_agent(tmp_path: Path) -> None:
    """A node that has the code says so and no agent stays; any other answers in its hello, and the
    first request is the one that sends.
    """
    folder = write_tree(tmp_path / "code", FILES)
    first = take_snapshot([TreePart(source=folder)], tmp_path / "cache")
    endpoint = SshEndpoint(host="localhost")
    spec = NodeSpec(name="n1", ssh=endpoint, workdir=str(tmp_path / "n1"))

    async def sync(snapshot: Snapshot) -> tuple[Sent, list[str], bool]:
        transport = LocalTransport("n1")
        channel = await AgentChannel.open(
            transport, spec, timeout_s=scaled(20), offer=snapshot.offer
        )
        try:
            recorder, ended = Recorder(channel), channel.lost is not None
            sent = await push_snapshot(
                recorder, snapshot, timeout_s=scaled(LIMIT_S), offered=channel.offered
            )
            return sent, recorder.ops, ended
        finally:
            await channel.close()
            await transport.close()

    sent, ops, ended = await sync(first)
    assert (sent.files, ops[0], ended) == (len(FILES), "offer", False)
    assert await sync(first) == (Sent(), [], True)
    (folder / "a.py").write_bytes(b"print(2)\n")
    second = take_snapshot([TreePart(source=folder)], tmp_path / "cache")
    sent, ops, ended = await sync(second)
    assert (sent.files, ops, ended) == (1, ["offer", "push"], False)
    assert held(tmp_path, "n1", second) == FILES | {"a.py": b"print(2)\n"}
    for mark in (tmp_path / "n1/node/snapshots" / second.digest / ".orchestrate").glob("ver*"):
        mark.unlink()
    sent, ops, ended = await sync(second)
    assert (sent.files, ops, ended) == (0, ["offer"], False), "read behind the hello, not before"


async def test_a_refusal_reaches_the_caller_and_spares_the_channel(
    tmp_path: Path, open_node: Open
) -> None:
    """An error of the node's file system says where; the channel answers afterwards."""
    snapshot = taken(tmp_path)
    channel = await open_node("n1")
    blocked = tmp_path / "n1/node/snapshots" / f".partial-{snapshot.digest}"
    blocked.write_bytes(b"in the way")

    with pytest.raises(OrchestrateError) as caught:
        await push_snapshot(channel, snapshot, timeout_s=scaled(LIMIT_S))

    assert caught.value.id == "OR-AGENT-SYSTEM"
    assert str(blocked) in str(caught.value)
    blocked.unlink()
    await push_snapshot(channel, snapshot, timeout_s=scaled(LIMIT_S))
    assert held(tmp_path, "n1", snapshot) == FILES


async def test_a_full_disk_is_named_with_its_node(tmp_path: Path) -> None:
    """The refusal becomes an error that says where and what to do, before the run starts."""

    class Full:
        node = "n7"

        async def request(self, op: str, *args: Any, **options: Any) -> Reply:
            raise AgentError("too little space", id="OR-AGENT-DISK", where=self.node)

    with pytest.raises(PreflightError) as caught:
        await push_snapshot(Full(), taken(tmp_path), timeout_s=scaled(LIMIT_S))

    assert (caught.value.id, caught.value.where) == ("OR-SYNC-009", "n7")
    assert "too little space" in str(caught.value)


async def test_time_is_bounded(tmp_path: Path, open_node: Open) -> None:
    """A spent budget is an error that says how to go on."""
    with pytest.raises(DeadlineError) as caught:
        await push_snapshot(await open_node("n1"), taken(tmp_path), timeout_s=0.0)

    assert caught.value.id == "OR-SYNC-008"
