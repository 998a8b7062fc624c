"""The lease ends ranks that nobody looks after; the epoch keeps an older coordinator out."""

from __future__ import annotations

import asyncio
import time

import pytest

from orchestrator.adapters.agent_client.channel import AgentError
from tests.contracts.agent.attempts import Attempt, eventually, running, shell
from tests.time_limits import assert_within, budget

pytestmark = pytest.mark.processes

WAITING = "echo up; exec sleep 300"


async def test_without_renewal_the_ranks_are_stopped_and_the_spool_stays(attempt: Attempt) -> None:
    """The node does this by itself: nothing is sent to it."""
    began = time.monotonic()
    await attempt.launch(shell(0, WAITING), lease_s=0.5)

    concluded = await attempt.to_end()

    took_s = time.monotonic() - began
    assert took_s > 0.4
    assert_within("the end of a lease", took_s, 5)
    assert attempt.only("stopping")["why"] == concluded["why"] == "lease"
    assert attempt.only("rank-exited")["by_us"] is True
    assert running(attempt.names["run"]) == []
    assert (attempt.root / "logs" / "rank-0.out").read_bytes() == b"up\n"


async def test_renewal_keeps_it_going(attempt: Attempt) -> None:
    """Renewed three times past its first lease, it still runs."""
    lease_s = budget(0.6)
    await attempt.launch(shell(0, WAITING), lease_s=lease_s)
    for _ in range(4):
        answer = await attempt.ask("renew", epoch=1, lease_s=lease_s)
        assert answer["supervisor"] == "alive"
        await asyncio.sleep(lease_s / 2)

    await attempt.ask("renew", epoch=1, lease_s=60.0)

    assert len(running(attempt.names["run"])) == 1
    assert not attempt.seen("stopping")


async def test_a_lease_without_an_end(attempt: Attempt) -> None:
    """None takes away a deadline that was set, and a number sets one again."""
    lease_s = budget(0.6)
    await attempt.launch(shell(0, WAITING), lease_s=lease_s)
    await attempt.ask("renew", epoch=1, lease_s=None)
    await asyncio.sleep(1.6 * lease_s)  # what is shown is that nothing happens
    assert len(running(attempt.names["run"])) == 1

    await attempt.ask("renew", epoch=1, lease_s=0.2)

    assert (await attempt.to_end())["why"] == "lease"


async def test_a_launch_without_an_end_to_its_lease(attempt: Attempt) -> None:
    """The run ends with its work; a launch that does not mention the lease is refused."""
    with pytest.raises(AgentError):
        await attempt.ask("launch", epoch=1, grace_s=1.0, processes=[shell(0, "true")])
    await attempt.launch(shell(0, "sleep 0.1"), lease_s=None)

    assert (await attempt.to_end())["why"] == "finished"


async def test_an_older_epoch_is_fenced(attempt: Attempt) -> None:
    """Once epoch 5 has renewed, epoch 4 can do nothing more, and the run goes on."""
    await attempt.launch(shell(0, WAITING), epoch=4)
    await attempt.ask("renew", epoch=5, lease_s=60.0)

    for op in ("renew", "stop", "sweep"):
        with pytest.raises(AgentError) as refused:
            await attempt.ask(op, epoch=4, lease_s=60.0, grace_s=0.0)
        assert refused.value.id == "OR-AGENT-FENCED", op
    attempt.names["attempt"] = 2
    with pytest.raises(AgentError) as launching:
        await attempt.launch(shell(0, WAITING), epoch=4)

    assert launching.value.id == "OR-AGENT-FENCED"
    await eventually(lambda: len(running(attempt.names["run"])) == 1)
    assert not attempt.seen("stopping")


async def test_a_stop_fences_as_well(attempt: Attempt) -> None:
    """Whoever stopped with epoch 6 has the run: epoch 4 may not renew it any more."""
    await attempt.launch(shell(0, WAITING), epoch=4)
    await attempt.ask("stop", epoch=6, grace_s=0.0)

    with pytest.raises(AgentError) as refused:
        await attempt.ask("renew", epoch=4, lease_s=60.0)

    assert refused.value.id == "OR-AGENT-FENCED"
    assert (await attempt.to_end())["why"] == "asked"


async def test_one_attempt_at_a_time(attempt: Attempt) -> None:
    """A second attempt waits until the first has concluded."""
    await attempt.launch(shell(0, WAITING))
    attempt.names["attempt"] = 2

    with pytest.raises(AgentError) as refused:
        await attempt.launch(shell(0, WAITING))

    assert refused.value.id == "OR-AGENT-BUSY"
