"""A server beside a benchmark, in a process of its own that answers each line with a line."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import BenchError


class LineProgram:
    """``name``: as errors call it."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    def say(self, line: str) -> str:
        """What it answers. Raises :class:`BenchError` when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise BenchError(f"{self._name} has ended")
        return answer


@contextlib.contextmanager
def line_program(path: Path, core: str, name: str) -> Iterator[LineProgram]:
    """The Python program at ``path`` on a processor of its own, until the end of the block."""
    process = subprocess.Popen(
        ["taskset", "-c", core, sys.executable, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield LineProgram(process, name)
    finally:
        process.kill()
        process.communicate()
