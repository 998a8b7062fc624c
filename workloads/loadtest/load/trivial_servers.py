"""Servers that do nothing, on this machine: what a client can reach by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from ..base.job import Target
from .fleet import LoadError

TRIVIAL_SERVER = Path(__file__).parents[1] / "client" / "trivial_server.py"


@contextmanager
def trivial_servers(number: int) -> Iterator[list[Target]]:
    """So many of them, gone at the end. Raises :class:`LoadError`."""
    processes = [
        Popen([sys.executable, str(TRIVIAL_SERVER)], stdin=PIPE, stdout=PIPE, text=True)
        for _ in range(number)
    ]
    try:
        yield [_target(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _target(process: Popen[str]) -> Target:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("{}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.strip().isdigit():
        raise LoadError("the server that measures the client's ceiling did not start")
    return Target(url=f"http://127.0.0.1:{line.strip()}/v1", model="trivial")
