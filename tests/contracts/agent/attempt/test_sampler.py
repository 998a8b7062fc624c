"""The sampler beside the ranks: it ends with them, whatever it waits for, and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentError
from tests.contracts.agent.attempts import Attempt, eventually, running, shell
from tests.fixtures.nvml import build_driver

pytestmark = pytest.mark.processes


def index_of(attempt: Attempt) -> Path:
    return attempt.root / "output" / "captures" / "captures.json"


async def test_ranks_that_end_at_once_leave_an_index(attempt: Attempt) -> None:
    await attempt.launch(shell(0, "true"), captures=["power", "clocks"])
    concluded = await attempt.to_end()
    index = json.loads(index_of(attempt).read_text())
    assert index["captures"]["power"]["missing"] == "the job has no GPU on this node"
    assert index["seconds"] is not None
    assert concluded["clean"] is True
    assert (await attempt.ask("outputs"))["count"] == 1


async def test_a_driver_that_does_not_answer_holds_up_nothing(
    attempt: Attempt, tmp_path: Path
) -> None:
    """The rank ends while the sampler waits for the driver: it is killed, and nothing is left."""
    driver = {"LD_LIBRARY_PATH": str(build_driver(tmp_path)), "FAKE_HANGS": "1"}
    script = 'until [ -e "$ORCHESTRATE_OUTPUT_DIR/go" ]; do sleep 0.05; done'
    await attempt.launch(shell(0, script, **driver), captures=["power"], gpus=[0])
    await eventually(index_of(attempt).exists)
    (attempt.root / "output" / "go").touch()
    concluded = await attempt.to_end(within_s=30)
    assert (concluded["clean"], concluded["outcomes"]) == (True, {"rank-0": {"exited": 0}})
    assert running(attempt.names["run"]) == []
    index = json.loads(index_of(attempt).read_text())
    assert index["captures"]["power"]["missing"] == "the driver did not answer"
    assert index["seconds"] is None


@pytest.mark.parametrize("captures", [["powr"], ["power", "power"], "power"])
async def test_what_is_no_list_of_captures_is_refused(attempt: Attempt, captures: object) -> None:
    with pytest.raises(AgentError, match="'captures' is not"):
        await attempt.launch(shell(0, "true"), captures=captures)
