"""Ray under a supervisor: with a cluster of the run's own, and in one that others use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contracts.launchers.contract import (
    IndependentRanks,
    LauncherContract,
    LauncherProcess,
    OnceEach,
)
from tests.contracts.launchers.foreign_ray import look, on_this_machine
from tests.contracts.launchers.worlds import free_port

UP_S = 90.0
pytestmark = pytest.mark.timeout(3 * UP_S)


class TestOwnCluster(OnceEach, LauncherProcess):
    """Those of the cases that have to do with its beginning and its end."""

    launcher = "ray"
    meets = True
    up_s = UP_S


class TestJoinedCluster(LauncherContract, IndependentRanks, LauncherProcess):
    """All of them; and the cluster is left as it was."""

    launcher = "ray"
    meets = True
    up_s = UP_S
    address: ClassVar[str]
    before: ClassVar[dict[str, Any]]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def cluster(cls) -> Iterator[None]:
        """Two Ray nodes that somebody else started; their sockets need a short path."""
        root = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        try:
            with on_this_machine(root, free_port(), nodes=2) as cls.address:
                cls.before = look(list, cls.address)
                yield
                assert look(list, cls.address) == cls.before
        finally:
            shutil.rmtree(root)

    @property
    def how(self) -> dict[str, Any]:
        here = self.address.partition(":")[0]
        return {"options": (f"ray-address={self.address}",), "addresses": ((here,), (here,))}
