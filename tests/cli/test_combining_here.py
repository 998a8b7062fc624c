"""Independent ranks on this machine, and one result of all nodes' outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.local_desk import open_local_desk
from tests.hosts.running import Desk

PROGRAM = Path(__file__).parents[1] / "workloads" / "programs" / "pooled"
pytestmark = pytest.mark.processes


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Three nodes that are this machine."""
    with open_local_desk(tmp_path, 3) as desk:
        yield desk


def test_the_figures_of_a_run_are_made_of_all_nodes_outputs(desk: Desk) -> None:
    """Twenty numbers are 10 and one is 1; the mean of the nodes' medians would be 7."""
    job = desk.start_workload(PROGRAM)

    ending = job.end()

    assert ending.result["status"] == "succeeded", ending.err
    assert ending.result["metrics"]["median"]["value"] == 10
    assert [mode["rung"] for mode in ending.result["ladder"]] == ["independent"]
    assert ending.result["launcher"] == "manual"
    run = desk.home / "runs" / job.run
    assert (run / "artifacts" / "read.txt").read_text() == "3"
    assert not list(run.glob("combine-*"))


def test_a_script_that_fails_names_a_failure_of_its_workload(desk: Desk) -> None:
    """As a rank may. What it reported before is kept."""
    job = desk.start_workload(PROGRAM, "broken=true")

    ending = job.end()

    failure = ending.result["failure"]
    assert (ending.code, failure["id"]) == (1, "POOL-NUMBERS-001")
    assert failure["cause"] == "1 of 3 nodes have left no numbers"
    assert failure["remedy"] == "run it again"
    assert ending.result["metrics"]["median"]["value"] == 10


def test_one_node_needs_no_script(desk: Desk) -> None:
    """Its own figures are those of the run: here it does not report the one that is required."""
    job = desk.start_workload(PROGRAM, options=("--nodes", "n1"))

    ending = job.end()

    assert ending.result["failure"]["id"] == "OR-GATE-001"
    assert ending.result["metrics"]["own_median"]["value"] == 1
