"""Locks: all or none, never two holders, never a moment without one, and free when theirs is dead.

The machine's lock files are shared by everything that runs on it: tests use names of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError
from orchestrator.node_agent.attempt.locks import LockHeld, LockRoom
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.sysfs import boot_id
from tests.contracts.agent.attempts import Attempt, eventually, exists, running, shell
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel
from tests.time_limits import scaled

WAITING = "exec sleep 300"
Locks = list[dict[str, str]]


@pytest.fixture
def names() -> Iterator[list[str]]:
    """Three names that nobody else uses, in order."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    own = [f"{prefix}-{number}" for number in range(3)]
    yield own
    for name in own:
        shutil.rmtree(Path(LockRoom.open().root) / name, ignore_errors=True)


def exclusive(*names: str) -> Locks:
    return [{"name": name, "mode": "exclusive"} for name in names]


def shared(*names: str) -> Locks:
    return [{"name": name, "mode": "shared"} for name in names]


async def reserve(
    attempt: Attempt, locks: Locks, channel: AgentChannel | None = None, epoch: int = 1
) -> dict[str, Any]:
    fields = {"run": attempt.names["run"], "node": attempt.names["node"]}
    request = {**fields, "locks": locks, "epoch": epoch, "coordinator": "desk"}
    reply = await (channel or attempt.channel).request("reserve", request, timeout_s=scaled(15))
    return dict(reply.fields)


async def unreserve(attempt: Attempt) -> dict[str, Any]:
    fields = {"run": attempt.names["run"], "node": attempt.names["node"]}
    return dict((await attempt.channel.request("unreserve", fields, timeout_s=scaled(15))).fields)


def is_free(name: str) -> bool:
    """Whether we could take the lock. Written apart from the code that is tested."""
    with (Path(LockRoom.open().root) / name / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.processes
async def test_the_second_learns_who_has_it(make_attempt: MakeAttempt, names: list[str]) -> None:
    """Run, node, user, process, since when and from where; nothing of the set was taken."""
    first, second, third = [await make_attempt(watched=False) for _ in range(3)]
    began = time.time()
    assert await reserve(first, exclusive(names[1])) == {"reserved": True}

    refused = await reserve(second, exclusive(*names))

    since = refused["holder"].pop("since")
    assert began <= since <= time.time()
    assert refused == {
        "reserved": False,
        "lock": names[1],
        "holder": {
            "run": first.names["run"],
            "node": "n1",
            "user": pwd.getpwuid(os.geteuid()).pw_name,
            "pid": first.channel.hello.pid,
            "coordinator": "desk",
        },
    }
    assert await reserve(third, exclusive(names[0], names[2])) == {"reserved": True}


@pytest.mark.processes
async def test_repeats_hold_it_once(make_attempt: MakeAttempt, names: list[str]) -> None:
    """Ten at once are one reservation, and one `unreserve` gives it back."""
    first, second = [await make_attempt(watched=False) for _ in range(2)]

    answers = await asyncio.gather(*(reserve(first, exclusive(*names)) for _ in range(10)))

    assert answers == [{"reserved": True}] * 10
    assert await unreserve(first) == {"released": True}
    assert await unreserve(first) == {"released": False}
    assert all(map(is_free, names))
    assert await reserve(second, exclusive(*names)) == {"reserved": True}


@pytest.mark.processes
async def test_a_reservation_may_change(make_attempt: MakeAttempt, names: list[str]) -> None:
    """What is no longer wanted is free; one that cannot grow stays as it was."""
    first, second = [await make_attempt(watched=False) for _ in range(2)]
    await reserve(first, exclusive(names[0], names[1]))
    await reserve(first, exclusive(names[1]))
    assert await reserve(second, exclusive(names[0])) == {"reserved": True}

    grown = await reserve(first, exclusive(names[0], names[1]))

    assert grown["reserved"] is False
    assert not is_free(names[1])


@pytest.mark.processes
async def test_readers_share_and_writers_do_not(
    make_attempt: MakeAttempt, names: list[str]
) -> None:
    """Two nodes of one run hold `node` together; whoever wants it alone waits for both."""
    first, twin, other = [await make_attempt(watched=False) for _ in range(3)]
    twin.names.update(run=first.names["run"], node="n2")
    assert await reserve(first, [*shared(names[0]), *exclusive(names[1])]) == {"reserved": True}
    assert await reserve(twin, [*shared(names[0]), *exclusive(names[2])]) == {"reserved": True}

    alone = await reserve(other, exclusive(names[0]))
    await unreserve(first)
    still = await reserve(other, exclusive(names[0]))
    await unreserve(twin)

    assert (alone["reserved"], alone["holder"]["node"]) == (False, "n1")
    assert (still["reserved"], still["holder"]["node"]) == (False, "n2")
    assert await reserve(other, exclusive(names[0])) == {"reserved": True}
    assert (await reserve(first, shared(names[0])))["holder"]["run"] == other.names["run"]


@pytest.mark.processes
@pytest.mark.parametrize("killed", [False, True])
async def test_the_end_of_the_channel_frees(
    make_attempt: MakeAttempt, open_channel: OpenChannel, names: list[str], killed: bool
) -> None:
    """However the agent ends: what it reserved is anybody's again."""
    attempt = await make_attempt(watched=False)
    channel = await open_channel()
    await reserve(attempt, exclusive(*names), channel)

    if killed:
        os.kill(channel.hello.pid, signal.SIGKILL)
    else:
        await channel.close()

    await eventually(lambda: all(map(is_free, names)), 5)


@pytest.mark.processes
async def test_a_supervisor_takes_over_without_a_gap(
    make_attempt: MakeAttempt, open_channel: OpenChannel, names: list[str]
) -> None:
    """Somebody who tries all the time never gets it, from the reservation to the run's end."""
    attempt, other = [await make_attempt(watched=n == 0) for n in range(2)]
    await reserve(attempt, exclusive(names[0]))
    before = await reserve(other, exclusive(names[0]))
    over, gaps = threading.Event(), []

    def try_all_the_time() -> None:
        while not over.wait(0.0005):
            if is_free(names[0]):
                gaps.append(time.monotonic())

    thief = threading.Thread(target=try_all_the_time)
    thief.start()
    reply = await attempt.launch(shell(0, WAITING), locks=exclusive(names[0]))
    os.kill(attempt.channel.hello.pid, signal.SIGKILL)
    fresh = await open_channel()
    after = await reserve(other, exclusive(names[0]), fresh)
    over.set()
    thief.join()

    assert gaps == []
    assert after["holder"]["pid"] == reply.fields["supervisor"]["pid"]
    assert before["holder"]["since"] == after["holder"]["since"]
    attempt.channel = fresh
    await attempt.ask("sweep")
    assert await reserve(other, exclusive(names[0]), fresh) == {"reserved": True}


@pytest.mark.processes
async def test_ranks_do_not_hold_the_locks(attempt: Attempt, names: list[str]) -> None:
    """A supervisor that is killed lets go, although a rank of it lives on."""
    reply = await attempt.launch(
        shell(0, f"setsid sleep 300 & {WAITING}"), locks=exclusive(names[0])
    )
    await eventually(lambda: len(running(attempt.names["run"])) >= 2)
    assert not is_free(names[0])

    os.kill(reply.fields["supervisor"]["pid"], signal.SIGKILL)
    await eventually(lambda: not exists(reply.fields["supervisor"]["pid"]))

    assert is_free(names[0])
    assert len(running(attempt.names["run"])) >= 1


@pytest.mark.processes
async def test_a_launch_takes_what_was_not_reserved(
    make_attempt: MakeAttempt, names: list[str]
) -> None:
    """The second one is refused with the holder's name, starts nothing and holds nothing."""
    first, second = [await make_attempt(watched=False) for _ in range(2)]
    await first.launch(shell(0, WAITING), locks=exclusive(names[1]))

    with pytest.raises(AgentError) as refused:
        await second.launch(shell(0, WAITING), locks=exclusive(*names))
    with pytest.raises(AgentError) as absent:
        await second.ask("stop", grace_s=0.0)

    assert refused.value.id == "OR-AGENT-BUSY"
    assert f"{names[1]} is in use by run {first.names['run']} on node n1" in refused.value.what
    assert time.strftime("since %Y-%m-%dT", time.gmtime()) in refused.value.what
    assert absent.value.id == "OR-AGENT-ABSENT"
    assert is_free(names[0])
    await first.ask("sweep")
    assert (await second.launch(shell(0, "true"), locks=exclusive(*names))).fields["alive"]


@pytest.mark.processes
async def test_launches_at_once_start_one(attempt: Attempt, names: list[str]) -> None:
    """Eight duplicates, each a request of its own: one supervisor, which holds every lock."""
    launches = [attempt.launch(shell(0, WAITING), locks=exclusive(*names)) for _ in range(8)]

    replies = await asyncio.gather(reserve(attempt, exclusive(*names)), *launches)

    answers = [reply.fields for reply in replies[1:]]  # type: ignore[union-attr]
    assert sorted(answer["already"] for answer in answers) == [False] + [True] * 7
    assert len({answer["supervisor"]["pid"] for answer in answers}) == 1
    await attempt.follow(lambda a: a.seen("rank-started"))
    assert len(attempt.of("started")) == 1
    assert not any(map(is_free, names))
    assert await reserve(attempt, exclusive(*names)) == {"reserved": True}
    await unreserve(attempt)
    assert not any(map(is_free, names))


@pytest.mark.processes
@pytest.mark.parametrize("reserved", [False, True])
async def test_a_launch_that_fails_changes_nothing(
    make_attempt: MakeAttempt, names: list[str], reserved: bool
) -> None:
    """What was reserved stays reserved, what it took itself is free."""
    attempt = await make_attempt(watched=False)
    attempt.root.parent.mkdir(parents=True)
    attempt.root.touch()
    if reserved:
        await reserve(attempt, exclusive(*names))

    with pytest.raises(AgentError) as refused:
        await attempt.launch(shell(0, WAITING), locks=exclusive(*names))

    assert refused.value.id == "OR-AGENT-UNSAFE"
    assert [is_free(name) for name in names] == [not reserved] * 3


@pytest.mark.processes
async def test_an_earlier_agent_of_the_run_is_no_rival(
    make_attempt: MakeAttempt, open_channel: OpenChannel, names: list[str]
) -> None:
    """The link broke and the agent there hangs: the new channel gets what the old one holds."""
    attempt = await make_attempt(watched=False)
    left = await open_channel()
    await reserve(attempt, exclusive(*names), left)
    os.kill(left.hello.pid, signal.SIGSTOP)

    assert await reserve(attempt, exclusive(*names)) == {"reserved": True}
    assert not exists(left.hello.pid)


@pytest.mark.processes
async def test_launches_over_several_channels_start_one(
    attempt: Attempt, open_channel: OpenChannel, names: list[str]
) -> None:
    """The link broke after the reservation, and twice while it was launched: still one supervisor,
    with every lock.
    """
    left, *others = [await open_channel() for _ in range(4)]
    await reserve(attempt, exclusive(*names), left)
    fixed = {"epoch": 1, "lease_s": 60.0, "grace_s": 1.0, "locks": exclusive(*names)}
    request = {**attempt.names, **fixed, "processes": [shell(0, WAITING)]}

    replies = await asyncio.gather(
        *(o.request("launch", request, timeout_s=scaled(30)) for o in others)
    )

    assert sorted(reply.fields["already"] for reply in replies) == [False, True, True]
    assert len({reply.fields["supervisor"]["pid"] for reply in replies}) == 1
    await attempt.follow(lambda a: a.seen("rank-started"))
    assert not any(map(is_free, names))
    assert not exists(left.hello.pid)


@pytest.mark.processes
async def test_reservations_are_fenced_and_swept(
    make_attempt: MakeAttempt, names: list[str]
) -> None:
    """A sweep of a newer epoch frees what was reserved and keeps the older one out."""
    attempt = await make_attempt(watched=False)
    await reserve(attempt, exclusive(*names), epoch=2)

    await attempt.ask("sweep", epoch=3)

    assert all(map(is_free, names))
    with pytest.raises(AgentError) as refused:
        await reserve(attempt, exclusive(*names), epoch=2)
    assert refused.value.id == "OR-AGENT-FENCED"


# ---- the room itself ---------------------------------------------------------------------------


def record(**changes: object) -> dict[str, object]:
    started = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    own = {"run": "r", "node": "n", "user": "u", "since": 1.0, "coordinator": "", "share": "s"}
    identity = {"pid": os.getpid(), "start_time": int(started), "boot_id": boot_id()}
    return {**own, **identity, "role": "supervisor", "mode": "exclusive", **changes}


@pytest.mark.parametrize(
    "text,believed",
    [
        (json.dumps(record()), True),
        (json.dumps(record(start_time=1)), False),
        (json.dumps(record(boot_id="another boot")), False),
        (json.dumps(record(pid=2**22 + 1)), False),
        (json.dumps(record(since="yesterday")), False),
        (json.dumps(record(pid="1")), False),
        ("{}", False),
        ("[1]", False),
        ("", False),
        ("\0" * 99, False),
    ],
)
def test_a_record_is_believed_while_its_process_lives(
    tmp_path: Path, text: str, believed: bool
) -> None:
    """Another boot, another process under that pid, a torn file: then nobody knows the holder."""
    room = LockRoom.open([str(tmp_path)])
    held = room.take("gpu-0", "exclusive", "mine")
    Path(room.record("gpu-0", "theirs")).write_text(text)

    with pytest.raises(LockHeld) as occupied:
        room.take("gpu-0", "exclusive", "other")
    os.close(held)
    again = room.take("gpu-0", "exclusive", "other")

    assert (occupied.value.holder is not None) is believed
    assert "gpu-0 is in use by" in str(occupied.value)
    os.close(again)


def test_one_room_for_everybody(tmp_path: Path) -> None:
    """The first usable place, unless a room exists already; never one that others can empty."""
    open_to_all, first, second = (tmp_path / name for name in ("all", "first", "second"))
    for place in (open_to_all, second):
        place.mkdir()
    open_to_all.chmod(0o777)
    places = [str(open_to_all), str(first), str(second)]

    room = LockRoom.open(places)
    first.mkdir()

    assert Path(room.root).parent == second
    assert LockRoom.open(places).root == room.root
    assert Path(room.root).stat().st_mode & 0o777 == 0o700
    with pytest.raises(AgentFault):
        LockRoom.open([str(open_to_all), "/proc"])


@pytest.mark.skipif(os.geteuid() != 0, reason="hardware: only root can make a stranger's files")
def test_a_room_of_a_stranger_is_refused(tmp_path: Path) -> None:
    room = LockRoom.open([str(tmp_path)])
    os.chown(room.root, 12345, 12345)

    with pytest.raises(AgentFault, match="belongs to user id 12345"):
        LockRoom.open([str(tmp_path)])
