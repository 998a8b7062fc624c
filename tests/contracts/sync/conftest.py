"""A node to sync to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.sync.trees import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "work")
