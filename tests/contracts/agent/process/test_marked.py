"""Whose process is it: the attempt's directory decides, not names that people choose."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from orchestrator.node_agent.process.processes import MARKER, marked_processes

pytestmark = pytest.mark.processes


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A rank of run ``same`` on node ``n1`` of one work directory."""
    environment = {
        **os.environ,
        "ORCHESTRATE_RUN_ID": "same",
        "ORCHESTRATE_NODE": "n1",
        MARKER: "/work/a/node/runs/same/n1/attempt-1",
    }
    with subprocess.Popen(["sleep", "60"], env=environment) as process:
        yield process
        process.kill()


def test_a_run_of_the_same_name_in_another_work_directory_is_a_stranger(
    sleeper: subprocess.Popen[bytes],
) -> None:
    """Two coordinators may both call a run ``same``: neither may end the other's ranks."""
    assert [found.pid for found in marked_processes("/work/a/node/runs/same/n1")] == [sleeper.pid]
    assert marked_processes("/work/b/node/runs/same/n1") == []
    assert marked_processes("/work/a/node/runs/same/n") == []
