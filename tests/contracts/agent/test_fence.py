"""After a sweep that fences, a launch that comes too late starts nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from orchestrator.edges.agent.channel import AgentError
from orchestrator.edges.agent.node.layout import NodeLayout, lock
from tests.contracts.agent.attempts import Attempt, running, shell

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
    held = lock(place.lock)
    launch = asyncio.create_task(attempt.launch(shell(0, WAITING)))
    sweep = asyncio.create_task(attempt.ask("sweep", epoch=2))
    done, _ = await asyncio.wait([launch, sweep], timeout=0.3)
    assert not done

    os.close(held)
    _, swept = await asyncio.gather(launch, sweep, return_exceptions=True)

    assert isinstance(swept, dict)
    assert swept["clean"] is True
    assert running(attempt.names["run"]) == []
