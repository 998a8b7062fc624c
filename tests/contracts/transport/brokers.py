"""A broker for tests: begun by a process of its own, as a command begins it, and ended for sure."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from orchestrator.adapters.transport.broker.find_broker import broker_path
from orchestrator.adapters.transport.kept_time import KEEP_VARIABLE
from tests.architecture.source import ROOT
from tests.time_limits import Deadline, scaled

POLL_S = 0.01
BEGINS = """
from orchestrator.adapters.transport.broker.find_broker import expect_connections
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
expect_connections([NodeSpec(name="n", ssh=SshEndpoint(host="n"))])
"""


def begin_broker(**options: object) -> None:
    """As the first command of a user does; ``options`` of its process."""
    argv = [sys.executable, "-P", "-c", BEGINS]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(argv, check=True, timeout=scaled(30), env=env, **options)  # type: ignore[call-overload]


def broker_pid() -> int:
    """The broker's process: it has the lock open that the command took. Raises ``OSError``."""
    inode = Path(f"{broker_path(os.environ)}.lock").stat().st_ino
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(fd.stat().st_ino == inode for fd in (process / "fd").iterdir()):
                return int(process.name)
    raise FileNotFoundError("no broker")


def end_broker() -> None:
    """Kill the broker, if there is one."""
    with contextlib.suppress(OSError):
        pid = broker_pid()
        os.kill(pid, signal.SIGKILL)
        deadline = Deadline(10)
        while Path(f"/proc/{pid}/cmdline").read_bytes():
            assert not deadline.passed, f"the broker {pid} does not end"
            time.sleep(POLL_S)


@contextlib.contextmanager
def broker_of_its_own(patch: pytest.MonkeyPatch, *, begun: bool = True) -> Iterator[Path]:
    """Connections stay, in a folder of the test's own; nothing of it is left afterwards."""
    runtime = Path(mkdtemp(prefix="or-", dir="/tmp"))
    patch.setenv("XDG_RUNTIME_DIR", str(runtime))
    patch.setenv(KEEP_VARIABLE, "60")
    try:
        if begun:
            begin_broker()
        yield runtime / "orchestrate"
    finally:
        end_broker()
        shutil.rmtree(runtime)
