"""Ray under a supervisor: with a cluster of the run's own, and in one that others use.

A cluster takes long to start, so that each case is tried with one of the two, where it may matter.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.architecture.source import ROOT
from tests.contracts.launchers.contract import (
    Endings,
    IndependentRanks,
    LauncherProcess,
    OnceEach,
)
from tests.contracts.launchers.foreign_ray import look, on_this_machine
from tests.contracts.launchers.worlds import free_port
from tests.time_limits import communicate

UP_S = 90.0
TOKEN = "0123456789abcdef" * 4
CONNECT = """
import sys
sys.path.insert(0, sys.argv[2])
from orchestrator.node_agent.rank_env.ray_cluster import RayFailed
from orchestrator.node_agent.rank_env.ray_driver import connected
try:
    with connected(sys.argv[1], None, "x"):
        print("connected")
except RayFailed as failure:
    print(type(failure).__name__, failure)
"""
pytestmark = [pytest.mark.processes, pytest.mark.timeout(3 * UP_S)]


class TestOwnCluster(OnceEach, LauncherProcess):
    """It begins with the ranks and ends with them."""

    launcher = "ray"
    meets = True
    up_s = UP_S


class TestJoinedCluster(Endings, IndependentRanks, LauncherProcess):
    """However the ranks end, it is left as it was."""

    launcher = "ray"
    meets = True
    up_s = UP_S
    address: ClassVar[str]
    before: ClassVar[dict[str, Any]]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def cluster(cls) -> Iterator[None]:
        """One that somebody else started; its sockets need a short path."""
        root = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        try:
            with on_this_machine(root, free_port()) as cls.address:
                cls.before = look(list, cls.address)
                yield
                assert look(list, cls.address) == cls.before
        finally:
            shutil.rmtree(root)

    @property
    def how(self) -> dict[str, Any]:
        here = self.address.partition(":")[0]
        return {"options": (f"ray-address={self.address}",), "addresses": ((here,),)}


def with_token(token: str) -> dict[str, str]:
    """What makes Ray ask for a token, and give this one."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def connect(address: str, log: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Try to; what is printed says how it went. Standard error is a log file, as of a launcher."""
    home = {"HOME": str(log.parent)}  # where Ray would look for a token
    with log.open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-c", CONNECT, address, str(ROOT)],
            env={**os.environ, **home, **environment},
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )


def test_a_cluster_that_asks_for_a_token_is_not_said_to_be_absent(tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    tries = {"none": {}, "wrong": with_token("f" * 64), "right": with_token(TOKEN)}
    try:
        with on_this_machine(root, free_port(), with_token(TOKEN)) as address:
            started = {n: connect(address, tmp_path / n, env) for n, env in tries.items()}
            said = {n: communicate(process, UP_S)[0].strip() for n, process in started.items()}
    finally:
        shutil.rmtree(root)

    refusal = f"the Ray cluster at {address} asks for a token, and none or a wrong one was given"
    assert said["right"] == "connected"
    assert said["none"] == said["wrong"] == f"RayUnauthorised {refusal}"


# What node_agent/rank_env/ray_driver.py calls, and where Ray declares it.
CALLED = [
    ("_private/worker.py", "init"),
    ("_private/worker.py", "shutdown"),
    ("_private/worker.py", "get"),
    ("_private/worker.py", "wait"),
    ("_private/worker.py", "remote"),
    ("_private/worker.py", "get_gpu_ids"),
    ("_private/state.py", "nodes"),
    ("util/placement_group.py", "placement_group"),
    ("util/placement_group.py", "remove_placement_group"),
    ("util/scheduling_strategies.py", "PlacementGroupSchedulingStrategy"),
]


@pytest.mark.parametrize("file, name", CALLED, ids=lambda value: value)
def test_nothing_that_is_called_is_deprecated_in_this_ray(file: str, name: str) -> None:
    """Ray marks its interfaces by decorators; read from its source, for importing it takes long."""
    (package,) = find_spec("ray").submodule_search_locations
    tree = ast.parse((Path(package) / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [n for n in tree.body if isinstance(n, kinds) and n.name == name]
    marks = {ast.unparse(mark).partition("(")[0] for n in found for mark in n.decorator_list}

    assert marks & {"PublicAPI", "DeveloperAPI"}, f"{name} is not where it was: {marks}"
    assert "Deprecated" not in marks
