"""Trials: bounded in time and in what they tell, findable by a sweep, and gone afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError
from orchestrator.node_agent.code.told_process import tethered_argv
from tests.contracts.agent.attempts import eventually, exists, running
from tests.contracts.agent.conftest import OpenChannel
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

SOON_S = 15.0


def shell(label: str, script: str, **env: str) -> dict[str, Any]:
    return {"label": label, "argv": ["bash", "-c", script], "env": env}


class Trials:
    """Trials of one run, which has no attempt on the node."""

    def __init__(self, channel: AgentChannel) -> None:
        self.channel = channel
        self.names = {"run": f"run-{uuid.uuid4().hex[:12]}", "node": "n1", "attempt": 1}

    async def ask(self, *processes: dict[str, Any], **fields: Any) -> dict[str, dict[str, Any]]:
        """How each process ended, by label."""
        request = {"trial": "all", "deadline_s": 10.0, "epoch": 2, **self.names, **fields}
        request["processes"] = list(processes)
        reply = await self.channel.request("trial", request, timeout_s=scaled(SOON_S))
        return {process["label"]: process for process in json.loads(reply.payload)["processes"]}

    async def end(self, name: str = "all") -> bool:
        reply = await self.channel.request("end_trial", {"trial": name}, timeout_s=scaled(SOON_S))
        return bool(reply.fields["known"])

    def left(self) -> list[int]:
        return running(str(self.names["run"]))


@pytest.fixture
async def trials(channel: AgentChannel, open_channel: OpenChannel) -> AsyncIterator[Trials]:
    trials = Trials(channel)
    yield trials
    sweeper = await open_channel()
    names = {"run": trials.names["run"], "node": "n1"}
    await sweeper.request("sweep", names, timeout_s=scaled(30))
    assert trials.left() == []


async def test_each_process_tells_how_it_ended_and_its_last_lines(trials: Trials) -> None:
    """Standard output and error apart; markers and placeholders as for ranks; nothing is kept."""
    text = "echo $ORCHESTRATE_ATTEMPT_DIR; echo $WHERE >&2; ls {rank_env}; seq 100; printf last"
    told = await trials.ask(
        shell("trial-0", text, WHERE="{agent}"), shell("trial-1", "sleep 0.2; kill -ABRT $$")
    )
    first, second = told["trial-0"], told["trial-1"]
    assert (first["outcome"], first["by_us"]) == ({"exited": 0}, False)
    assert first["out"][-2:] == ["100", "last"]
    assert len(first["out"]) == 24
    assert first["err"][0].endswith("/node_agent")
    assert second["outcome"] == {"signalled": signal.SIGABRT}
    assert trials.left() == []


async def test_a_long_line_is_cut(trials: Trials) -> None:
    """Whatever is written: what is told stays small."""
    told = await trials.ask(
        shell("trial-0", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
    )
    assert [len(line) for line in told["trial-0"]["out"]] == [1024, 3]


async def test_the_deadline_ends_the_whole_group(trials: Trials) -> None:
    told = await trials.ask(
        shell("trial-0", "sleep 600 & sleep 600 & echo up; wait"), deadline_s=0.5
    )
    assert told["trial-0"]["by_us"] is True
    assert told["trial-0"]["outcome"] == {"signalled": signal.SIGKILL}
    assert told["trial-0"]["out"] == ["up"]
    assert trials.left() == []


async def test_one_that_fails_ends_the_others(trials: Trials) -> None:
    """After a moment for their last words; what an ended one left behind goes as well."""
    told = await trials.ask(
        shell("trial-0", "sleep 600 & exit 3"), shell("trial-1", "echo waiting; sleep 600")
    )
    assert told["trial-0"]["outcome"] == {"exited": 3}
    assert told["trial-0"]["by_us"] is False
    assert told["trial-1"]["by_us"] is True
    assert told["trial-1"]["out"] == ["waiting"]
    assert trials.left() == []


async def test_it_ends_when_it_is_told_to(trials: Trials) -> None:
    assert await trials.end() is False
    asked = asyncio.create_task(trials.ask(shell("trial-0", "sleep 600")))
    await eventually(trials.left)
    with pytest.raises(AgentError):
        await trials.ask(shell("trial-0", "true"))
    assert await trials.end() is True
    assert (await asked)["trial-0"]["by_us"] is True
    assert trials.left() == []


async def test_a_sweep_finds_it_and_keeps_later_ones_out(
    trials: Trials, open_channel: OpenChannel
) -> None:
    asked = asyncio.create_task(trials.ask(shell("trial-0", "setsid sleep 600 & sleep 600")))
    await eventually(lambda: len(trials.left()) >= 2)
    other = await open_channel()
    swept = await other.request(
        "sweep", {"run": trials.names["run"], "node": "n1", "epoch": 3}, timeout_s=scaled(SOON_S)
    )
    assert swept.fields["clean"] is True
    assert (await asked)["trial-0"]["outcome"] == {"signalled": signal.SIGKILL}
    with pytest.raises(AgentError) as refused:
        await trials.ask(shell("trial-0", "true"))
    assert refused.value.id == "OR-AGENT-FENCED"


@pytest.mark.parametrize("killed", [False, True])
async def test_it_ends_with_its_agent(
    trials: Trials, open_channel: OpenChannel, killed: bool
) -> None:
    """Also when that is killed: nothing tried must outlive whoever wanted to know."""
    trials.channel = await open_channel()
    asked = asyncio.create_task(trials.ask(shell("trial-0", "exec sleep 600")))
    # A process that is executing another program has no environment for a moment.
    seen: list[int] = []

    def look() -> list[int]:
        seen.extend(pid for pid in trials.left() if pid not in seen)
        return seen

    await eventually(look)
    (pid,) = seen
    if killed:
        os.kill(trials.channel.hello.pid, signal.SIGKILL)
    else:
        await trials.channel.close()
    await eventually(lambda: not exists(pid))
    await asyncio.gather(asked, return_exceptions=True)


def test_a_parent_that_is_gone_by_the_time_it_is_asked_for_is_noticed() -> None:
    """An agent can be killed between the start of a child and the child's first instruction."""
    argv = tethered_argv(["echo", "begun"])
    argv[argv.index(str(os.getpid()))] = "1"
    ended = subprocess.run(argv, capture_output=True, check=False, timeout=scaled(SOON_S))
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize(
    "wrong",
    [
        {"trial": "../x"},
        {"deadline_s": 0.0},
        {"deadline_s": 1e9},
        {"epoch": None},
        {"snapshot": "0" * 32},
        {"run": "../r"},
    ],
)
async def test_nonsense_is_refused(trials: Trials, wrong: dict[str, Any]) -> None:
    with pytest.raises(AgentError):
        await trials.ask(shell("trial-0", "true"), **wrong)
