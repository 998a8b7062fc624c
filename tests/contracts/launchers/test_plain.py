"""Launchers without a launcher process: the supervisor starts the ranks itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.launchers.contract import Begin, IndependentRanks, LauncherContract

pytestmark = pytest.mark.processes


# The store is the job's own, and files lie elsewhere; the last two are for torchrun itself.
OTHERWISE = {
    "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_ERROR_FILE",
    "TORCHELASTIC_SIGNALS_TO_HANDLE",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT",
}


class TestDirect(LauncherContract):
    launcher = "direct"
    meets = True

    async def test_its_ranks_are_told_what_torchrun_tells_them(self, begin: Begin) -> None:
        """The real torchrun is asked, so that a variable that it learns to set is noticed here."""
        told = {}
        for launcher in ("direct", "torchrun"):
            world = await begin("go", (2,), launcher=launcher)
            (attempt,) = world.attempts
            await attempt.to_end(60.0)
            told[launcher] = [world.told()[rank]["torchrun"] for rank in range(2)]

        for mine, theirs in zip(told["direct"], told["torchrun"], strict=True):
            assert {n: v for n, v in mine.items() if n not in OTHERWISE} == {
                n: v for n, v in theirs.items() if n not in OTHERWISE
            }
            assert mine["TORCHELASTIC_USE_AGENT_STORE"] == "False"
            assert Path(mine["TORCHELASTIC_ERROR_FILE"]).parent.is_dir()
            assert Path(theirs["TORCHELASTIC_ERROR_FILE"]).name == "error.json"


class TestManual(LauncherContract, IndependentRanks):
    launcher = "manual"


class TestCommand(LauncherContract, IndependentRanks):
    launcher = "command"
