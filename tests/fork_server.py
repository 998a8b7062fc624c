"""A process that has imported modules and forks programs which need them; see ``tests.forks``.

    fork_server.py SOCKET MODULE...

Each line on the socket is a program: JSON, with its stdout, its stderr and a pipe on which its
process id and later its exit code are reported. The server ends with the socket's other end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
ROOT = Path(__file__).resolve().parents[1]
PATH = sys.path[:]  # where an interpreter looks by itself


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork programs until nobody is left to ask for them; returns in the forks, with theirs."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wakes)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, CHUNK_BYTES)
            report_ended(reports)
        if requests not in ready:
            continue
        line, (out, err, report) = receive(requests)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, interrupted)
            os.dup2(out, 1)
            os.dup2(err, 2)
            for file in (out, err, report, woken, wakes, requests.detach(), *reports.values()):
                os.close(file)
            program: dict[str, Any] = json.loads(line)
            return program
        os.close(out)
        os.close(err)
        reports[pid] = report
        os.write(report, b"%d\n" % pid)


def receive(requests: socket.socket) -> tuple[bytes, list[int]]:
    """The next line and the files that came with it; ends this process when there is none."""
    line, files, _, _ = socket.recv_fds(requests, CHUNK_BYTES, 3)
    more = line
    while more and not line.endswith(b"\n"):
        more = requests.recv(CHUNK_BYTES)
        line += more
    if not more:
        sys.exit()
    return line, files


def report_ended(reports: dict[int, int]) -> None:
    """Write the exit codes of forks that ended, as `subprocess` counts them."""
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        report = reports.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
            os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(report)


def become(program: dict[str, Any]) -> None:
    """Be as if ``python ARGV...`` had been started."""
    os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["env"])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=bool(os.environ.get("PYTHONUNBUFFERED")))
    first, *others = program["argv"]
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, own), *PATH]
    if first == "-m":
        sys.argv[:] = others
        sys.path.insert(0, program["cwd"])
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:] = ["-c", *others[1:]]
        sys.path.insert(0, "")
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[:] = [first, *others]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    become(serve(socket.socket(fileno=int(sys.argv[1]))))
