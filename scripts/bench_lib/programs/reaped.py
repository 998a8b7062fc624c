"""Run a command and everything that it leaves behind; write what all of them took to a file.

    python3 reaped.py FILE COMMAND...

Processes that outlive their parents become children of this one, so that their CPU time counts,
too. FILE gets {"code", "wall_s", "cpu_s", "left"}: the command's exit status and seconds, CPU time
of all processes, and how many still ran `LEFT_S` after it; those are killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LEFT_S = 30.0
POLL_S = 0.02


def main() -> int:
    file, *argv = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    began = time.monotonic()
    code = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
    wall_s = time.monotonic() - began
    left = _reap(time.monotonic() + LEFT_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = {"code": code, "wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "left": left}
    Path(file).write_text(json.dumps(taken))
    return 0


def _reap(deadline: float) -> int:
    """Wait for all children; return how many had to be killed."""
    killed: set[int] = set()
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return len(killed)
        if not ended and time.monotonic() > deadline:
            for child in _children() - killed:
                os.kill(child, signal.SIGKILL)
                killed.add(child)
        if not ended:
            time.sleep(POLL_S)


def _children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


if __name__ == "__main__":
    sys.exit(main())
