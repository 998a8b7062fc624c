"""torchrun under a supervisor."""

from __future__ import annotations

import pytest

from tests.contracts.launchers.contract import LauncherContract, LauncherProcess

pytestmark = pytest.mark.processes


class TestTorchrun(LauncherContract, LauncherProcess):
    launcher = "torchrun"
    meets = True
    up_s = 60.0
