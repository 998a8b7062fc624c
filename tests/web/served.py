"""`orchestrate serve` as people start it, and a browser without any other network."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.architecture.source import ROOT
from tests.forks import COMMANDS, Fork
from tests.time_limits import scaled, wait_for_exit

ADDRESS = re.compile(r"serving (http://\S+/)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True, slots=True)
class Served:
    """A server under way: its process and where it listens."""

    address: str
    pid: int

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port


@contextmanager
def serve(home: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """The page of ``home`` on a free port of this machine, until the end."""
    variables = {
        **os.environ,
        "ORCHESTRATE_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        **(env or {}),
    }
    words = ["-m", "orchestrator", "serve", "--listen", "127.0.0.1:0", *options]
    with COMMANDS.start(words, ROOT, variables) as process:
        try:
            ready = select.select([process.stderr], [], [], scaled(30))[0]
            line = process.stderr.readline() if ready else "nothing"
            found = ADDRESS.match(line)
            assert found is not None, line
            yield Served(found[1], process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            _end(process)


def _end(process: Fork) -> None:
    try:
        wait_for_exit(process, 10)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def require_browser() -> str:
    """The browser of the distribution."""
    pytest.importorskip("playwright")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    return CHROMIUM
