"""A desk whose nodes are this machine, without SSH between them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.processes import Here, remains
from tests.hosts.running import Desk, open_desk


@contextmanager
def open_local_desk(tmp_path: Path, nodes: int) -> Iterator[Desk]:
    """Nodes ``n1`` to ``nN``. At the end its runs are stopped, and nothing of them is left."""
    cluster = tmp_path / "here.yaml"
    python, workdir = json.dumps(sys.executable), json.dumps(str(tmp_path / "node"))
    cluster.write_text(
        f"name: here\n"
        f"defaults: {{transport: local, gpus: 0, python: {python}, workdir: {workdir}}}\n"
        f"nodes: ['n[1-{nodes}]']\n"
    )
    root = tmp_path / f"here-{os.getpid()}-{tmp_path.name}"
    root.mkdir()
    with open_desk(root, cluster) as desk:
        yield desk
    for run in (path.name for path in (desk.home / "runs").glob("*")):
        desk.command("stop", run, "--now")
        assert not remains(Here(), run)
