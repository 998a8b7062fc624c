"""How this node's part of a Ray cluster is started, whose program here is one of the test's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.node_agent.rank_env.ray_cluster import RayCluster, RayFailed

pytestmark = pytest.mark.processes
# The words of ray/_private/node.py after its 30 s, which no setting changes.
TOO_SLOW = "Exception: The current node timed out during startup. This could happen because ..."
PROGRAM = """\
import pathlib, sys, time
tries = pathlib.Path("tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) < 3:
    sys.exit(sys.argv[1])
pathlib.Path("ray").mkdir()
pathlib.Path("ray/ray_current_cluster").touch()
time.sleep(60)
"""


class OwnProgram(RayCluster):
    """``words``: what the program ends with, twice, before it starts."""

    words = TOO_SLOW

    def _argv(self) -> list[str]:
        return [sys.executable, "-c", PROGRAM, self.words]


def make_cluster(kind: type[RayCluster], folder: Path) -> RayCluster:
    def check() -> None:
        """Nothing breaks a wait off."""

    return kind("127.0.0.1:0", head=True, resource="x", scratch=str(folder), check=check)


def test_a_host_that_is_too_slow_for_rays_own_limit_is_tried_again(tmp_path: Path) -> None:
    """Within our limit, which a loaded host may need."""
    cluster = make_cluster(OwnProgram, tmp_path)
    try:
        cluster.start()
    finally:
        cluster.stop()

    assert (tmp_path / "tries").read_text() == "xxx"


def test_another_failure_is_told_at_once(tmp_path: Path) -> None:
    class Fails(OwnProgram):
        words = "ValueError: no such resource"

    with pytest.raises(RayFailed, match="no such resource"):
        make_cluster(Fails, tmp_path).start()

    assert (tmp_path / "tries").read_text() == "x"
