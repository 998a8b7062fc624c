"""Ray under a supervisor: with a cluster of the run's own, and in one that others use.

A cluster takes long to start, so that each case is tried with one of the two, where it may matter.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contracts.launchers.contract import (
    Endings,
    IndependentRanks,
    LauncherProcess,
    OnceEach,
)
from tests.contracts.launchers.foreign_ray import look, on_this_machine
from tests.contracts.launchers.worlds import free_port

UP_S = 90.0
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
