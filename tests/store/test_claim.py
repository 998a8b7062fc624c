"""A run has one coordinator at a time; the kernel decides who, and notices its death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.adapters.store.claim import claimed
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.core.base.errors import BusyError
from tests.architecture.source import ROOT
from tests.time_limits import wait_for_exit

pytestmark = pytest.mark.processes

HOLD = """
import os, sys
from pathlib import Path
from orchestrator.adapters.store.claim import claimed
from orchestrator.adapters.store.layout import RunFolder

with claimed(RunFolder(Path(sys.argv[1])), at=5.0):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = Layout(tmp_path).run("r1")
    folder.create()
    return folder


@contextmanager
def holder(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", HOLD, str(folder.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        yield process
        process.kill()


def test_a_second_coordinator_is_told_who_is_first(folder: RunFolder) -> None:
    """Exit 75 with pid, host and the command that follows the run; also for ourselves."""
    with holder(folder) as first, pytest.raises(BusyError) as refused, claimed(folder, at=6.0):
        pass
    recorded = json.loads(folder.coordinator.read_text())
    assert f"process {first.pid} on {recorded['host']}" in refused.value.what
    assert refused.value.remedy == "orchestrate attach r1"
    assert (recorded["pid"], int(refused.value.exit_code)) == (first.pid, 75)
    with claimed(folder, at=6.0), pytest.raises(BusyError), claimed(folder, at=7.0):
        pass


def test_a_killed_coordinator_holds_nothing(folder: RunFolder) -> None:
    """KILL frees the claim at once; the run's beginning stays what the first one recorded."""
    with holder(folder) as first:
        first.kill()
        wait_for_exit(first, 10)
        with claimed(folder, at=6.0):
            recorded = json.loads(folder.coordinator.read_text())
    assert (recorded["pid"], recorded["at"]) == (os.getpid(), 5.0)


def test_what_a_coordinator_starts_does_not_hold_the_claim(folder: RunFolder) -> None:
    """A program that outlives its coordinator, such as a link's, keeps nobody out."""
    with claimed(folder, at=5.0):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with claimed(folder, at=6.0):
            pass
    finally:
        child.kill()
        wait_for_exit(child, 10)
