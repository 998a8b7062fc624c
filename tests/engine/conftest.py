"""Runs on this machine: two nodes of the `local` transport, no root needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.running import RANK, Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A project with ``rank.py``, a home, and the nodes n1 and n2 below ``node/``."""
    cluster = tmp_path / "pair.yaml"
    python, workdir = json.dumps(sys.executable), json.dumps(str(tmp_path / "node"))
    cluster.write_text(
        f"name: pair\ndefaults: {{transport: local, gpus: 0, python: {python}, workdir: {workdir}}}"
        "\nnodes: ['n[1-2]']\n"
    )
    with open_desk(tmp_path, cluster) as desk:
        desk.script("rank.py", RANK)
        yield desk
