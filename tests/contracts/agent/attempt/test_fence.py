"""After a sweep that fences, a launch that comes too late starts nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.node_agent.base.node_layout import NodeLayout, lock_file
from tests.contracts.agent.attempts import Attempt, running, shell

pytestmark = pytest.mark.processes

WAITING = "sleep 60"


async def test_a_late_launch_is_refused(attempt: Attempt) -> None:
    """The sweep came first: the launch of the older epoch is told so, and no process begins."""
    reply = await attempt.ask("sweep", epoch=2)
    assert reply["clean"] is True

    with pytest.raises(AgentError) as refused:
        await attempt.launch(shell(0, WAITING))

    assert refused.value.id == "OR-AGENT-FENCED"
    assert running(attempt.names["run"]) == []


async def test_a_launch_under_way_is_waited_for(attempt: Attempt, workdir: Path) -> None:
    """Both wait for the run's lock; whichever comes first, nothing is left afterwards."""
    place = NodeLayout.open(str(workdir)).run(attempt.names["run"], attempt.names["node"])
    place.create()
    held = lock_file(place.lock)
    launch = asyncio.create_task(attempt.launch(shell(0, WAITING)))
    sweep = asyncio.create_task(attempt.ask("sweep", epoch=2))
    done, _ = await asyncio.wait([launch, sweep], timeout=0.3)
    assert not done

    os.close(held)
    _, swept = await asyncio.gather(launch, sweep, return_exceptions=True)

    assert isinstance(swept, dict)
    assert swept["clean"] is True
    assert running(attempt.names["run"]) == []


async def test_a_run_of_the_same_name_from_elsewhere_is_left_alone(attempt: Attempt) -> None:
    """People choose run ids: another token is another run, which gets neither its ranks nor its
    files.
    """
    await attempt.launch(shell(0, "echo mine; exec sleep 300"), token="mine")
    for op, fields in [
        ("launch", {"lease_s": 60.0, "grace_s": 1.0, "processes": [shell(0, "true")]}),
        ("renew", {"lease_s": 60.0}),
        ("reserve", {"locks": []}),
        ("stop", {"grace_s": 0.0}),
        ("sweep", {}),
        ("clean", {}),
    ]:
        with pytest.raises(AgentError) as refused:
            await attempt.ask(op, epoch=9, token="theirs", **fields)
        assert refused.value.id == "OR-AGENT-FOREIGN", op
    assert (await attempt.ask("renew", epoch=1, lease_s=60.0, token="mine"))[
        "supervisor"
    ] == "alive"
    assert (await attempt.ask("sweep", epoch=2, token="mine"))["clean"] is True
