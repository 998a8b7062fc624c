"""Launchers without a launcher process: the supervisor starts the ranks itself."""

from __future__ import annotations

import pytest

from tests.contracts.launchers.contract import IndependentRanks, LauncherContract

pytestmark = pytest.mark.processes


class TestDirect(LauncherContract):
    launcher = "direct"
    meets = True


class TestManual(LauncherContract, IndependentRanks):
    launcher = "manual"


class TestCommand(LauncherContract, IndependentRanks):
    launcher = "command"
