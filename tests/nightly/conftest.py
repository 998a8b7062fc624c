"""Desks for tests of nights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nightly.crontabs import PrivateCron, needs_cron
from tests.nightly.night_desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, None)


@pytest.fixture
def cron_desk(tmp_path: Path) -> Desk:
    needs_cron()
    (tmp_path / "cron").mkdir()
    return Desk(tmp_path, PrivateCron(tmp_path / "cron"))
