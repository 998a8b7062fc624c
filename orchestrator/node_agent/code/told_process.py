"""A process that builds something, whose output is told line by line while it runs."""

from __future__ import annotations

import os
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.node_agent.base.call import Context

MAX_LINE_BYTES = 4096
MAX_LINES = 20_000
KEPT_LINES = 20
# The kernel ends it with its parent (PR_SET_PDEATHSIG), which may have ended just before we asked.
TETHER = (
    "import ctypes,os,signal,sys;ctypes.CDLL(None).prctl(1,signal.SIGKILL);"
    "os.getppid()==int(sys.argv[1]) or os.kill(os.getpid(),signal.SIGKILL);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)


class BuildFailed(Exception):
    """The process ended with ``code``; ``last`` are its last lines."""

    def __init__(self, code: int, last: list[str]) -> None:
        super().__init__(f"ended with {code}: " + " | ".join(last))
        self.code = code
        self.last = last


def tethered_argv(argv: list[str]) -> list[str]:
    """The command line of ``argv`` as a child of this process that does not outlive it."""
    return [sys.executable, "-I", "-S", "-c", TETHER, str(os.getpid()), *argv]


def run_told(
    context: Context, event: Mapping[str, str], argv: list[str], env: Mapping[str, str]
) -> list[str]:
    """Run to its end, sending each line as ``event``; its last lines. It ends with the channel.

    Raises :class:`BuildFailed`.
    """
    process = subprocess.Popen(
        tethered_argv(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        start_new_session=True,
    )
    context.builders.add(process.pid)
    try:
        last = _tell(context, event, process)
        code = process.wait()
    finally:
        context.builders.discard(process.pid)
    if code:
        raise BuildFailed(code, last)
    return last


def _tell(
    context: Context, event: Mapping[str, str], process: subprocess.Popen[bytes]
) -> list[str]:
    """Send the output line by line, up to a bound; returns its last lines."""
    assert process.stdout is not None
    told = 0
    last: list[str] = []
    while True:
        raw = process.stdout.readline(MAX_LINE_BYTES)
        if not raw:
            return last
        line = raw.decode(errors="replace").rstrip("\r\n")
        if line.strip():
            last = [*last, line][-KEPT_LINES:]
        if told < MAX_LINES:
            told += 1
            context.writer.send({**event, "line": line})
