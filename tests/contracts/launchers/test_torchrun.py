"""torchrun under a supervisor."""

from __future__ import annotations

from tests.contracts.launchers.contract import LauncherContract, LauncherProcess


class TestTorchrun(LauncherContract, LauncherProcess):
    launcher = "torchrun"
    meets = True
    up_s = 60.0
