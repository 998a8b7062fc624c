"""Signals for drills reach exactly the process that is meant, and no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentError, ChannelLost
from orchestrator.node_agent.process.rank_shim import start_time
from tests.contracts.agent.attempts import (
    Attempt,
    eventually,
    exists,
    launcher,
    shell,
    shimmed,
)
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel

pytestmark = pytest.mark.processes

WAITING = "exec sleep 300"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that belongs to no run."""
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def send(attempt: Attempt, target: object, name: object = "KILL", epoch: int = 1) -> int:
    return int((await attempt.ask("signal", target=target, signal=name, epoch=epoch))["pid"])


@pytest.mark.parametrize("under_shim", [False, True])
async def test_a_rank_is_killed(attempt: Attempt, under_shim: bool) -> None:
    """Exactly the rank's own process, whoever started it; the run notices as with any death."""
    if under_shim:
        await attempt.launch(launcher("bash", "-c", shimmed(0, WAITING) + "; exit $?"))
    else:
        await attempt.launch(shell(0, WAITING), shell(1, WAITING))
    await attempt.follow(lambda a: a.seen("rank-started", rank=0))

    pid = await send(attempt, "rank-0")

    await attempt.to_end()
    assert pid == attempt.only("rank-started", rank=0)["pid"]
    assert attempt.only("rank-exited", rank=0)["outcome"] == {"signalled": signal.SIGKILL}
    assert attempt.only("rank-exited", rank=0)["by_us"] is False


async def test_a_rank_is_frozen_and_thawed(attempt: Attempt) -> None:
    await attempt.launch(shell(0, WAITING))
    await attempt.follow(lambda a: a.seen("rank-started"))

    pid = await send(attempt, "rank-0", "STOP")
    await eventually(lambda: state_of(pid) == "T")
    await send(attempt, "rank-0", "CONT")

    await eventually(lambda: state_of(pid) == "S")


async def test_the_supervisor_is_killed(attempt: Attempt) -> None:
    reply = await attempt.launch(shell(0, WAITING))
    await attempt.follow(lambda a: a.seen("rank-started"))

    pid = await send(attempt, "supervisor")

    assert pid == reply.fields["supervisor"]["pid"]
    await attempt.follow(lambda a: a.last_event == "supervisor-lost")
    for target in ("supervisor", "rank-0"):
        with pytest.raises(AgentError) as refused:
            await send(attempt, target)
        assert refused.value.id == "OR-AGENT-ABSENT"


@pytest.mark.parametrize("name", ["KILL", "TERM"])
async def test_the_agent_answers_and_ends(
    make_attempt: MakeAttempt, open_channel: OpenChannel, name: str
) -> None:
    """The answer is there before the channel is lost; the supervisor does not notice."""
    attempt = await make_attempt(watched=False)
    reply = await attempt.launch(shell(0, WAITING))
    attempt.channel = await open_channel()

    pid = await send(attempt, "agent", name)

    assert pid == attempt.channel.hello.pid
    await eventually(lambda: not exists(pid))
    with pytest.raises(ChannelLost):
        await attempt.ask("runs")
    assert exists(reply.fields["supervisor"]["pid"])


@pytest.mark.parametrize(
    "target,name,id",
    [
        ("rank-1", "KILL", "OR-AGENT-ABSENT"),
        ("rank-0", "SEGV", "OR-AGENT-REQUEST"),
        ("rank-0", 9, "OR-AGENT-REQUEST"),
        ("rank-00", "KILL", "OR-AGENT-REQUEST"),
        ("rank--1", "KILL", "OR-AGENT-REQUEST"),
        ("launcher", "KILL", "OR-AGENT-REQUEST"),
        (1, "KILL", "OR-AGENT-REQUEST"),
    ],
)
async def test_anything_else_is_refused(
    attempt: Attempt, target: object, name: object, id: str
) -> None:
    await attempt.launch(shell(0, WAITING))

    with pytest.raises(AgentError) as refused:
        await send(attempt, target, name)

    assert refused.value.id == id


async def test_an_older_epoch_sends_nothing(attempt: Attempt) -> None:
    await attempt.launch(shell(0, WAITING), epoch=2)

    for target in ("rank-0", "supervisor", "agent"):
        with pytest.raises(AgentError) as refused:
            await send(attempt, target, epoch=1)
        assert refused.value.id == "OR-AGENT-FENCED"


@pytest.mark.parametrize("forgery", ["pid", "pid and start time"])
async def test_a_forged_record_leads_to_nobody(
    attempt: Attempt, stranger: subprocess.Popen[bytes], forgery: str
) -> None:
    """Ranks may write where their shims do: a record that names a stranger's pid harms nobody."""
    record = {"rank": 7, "local_rank": 7, "t": 1.0, "pid": stranger.pid, "launcher": 1}
    record["start_time"] = start_time(stranger.pid) if "start" in forgery else 1
    record.update(shim=os.getpid(), shim_start_time=1)
    await attempt.launch(shell(0, WAITING))
    (attempt.root / "ranks" / "new").write_text(json.dumps(record))
    (attempt.root / "ranks" / "new").rename(attempt.root / "ranks" / "rank-7-1.start")
    await attempt.follow(lambda a: a.seen("rank-started", rank=7))

    with pytest.raises(AgentError) as refused:
        await send(attempt, "rank-7")

    assert refused.value.id == "OR-AGENT-ABSENT"
    assert stranger.poll() is None
