"""Ray under a supervisor, with a cluster of the run's own."""

from __future__ import annotations

import pytest

from tests.contracts.launchers.contract import IndependentRanks, LauncherProcess

UP_S = 90.0
pytestmark = pytest.mark.timeout(3 * UP_S)


class TestRay(IndependentRanks, LauncherProcess):
    launcher = "ray"
    meets = True
    up_s = UP_S
