"""A warm process whose commands say what they find, or do what is asked; see ``test_likeness``.

    reporter.py SOCKET UNUSED_S        serve
    reporter.py --here WORD...         the same in a Python that was started for it

Descriptor 3 is the lock, as the product hands it down.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

from orchestrator.adapters.warm import warm_process
from orchestrator.adapters.warm.become import become

LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def report() -> int:
    """Do what the second word says; alone, print what this process finds."""
    _, _verb, *words = sys.argv
    match words:
        case ["say", text]:
            sys.stdout.write(text)
        case ["exit", code]:
            sys.exit(int(code))
        case ["fail"]:
            sys.exit("words for the user")
        case ["raise"]:
            raise KeyError("a bug")
        case ["wait"]:
            sys.stdout.write(f"{os.getpid()}\n")
            sys.stdout.flush()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            time.sleep(600)
        case ["random"]:
            sys.stdout.write(f"{random.random()}\n")
        case ["terminal"]:
            said = _found()
            json.dump({name: said[name] for name in ("terminal", "size", "streams")}, sys.stdout)
        case _:
            json.dump(_found(), sys.stdout, indent=1)
    return 0


def _found() -> dict[str, object]:
    folder = Path("/proc/self/fd")
    shown = {os.open(os.devnull, os.O_RDONLY)}  # the number of the listing itself
    os.close(*shown)
    open_now = {int(path.name) for path in folder.iterdir()} - shown
    return {
        "argv": sys.argv,
        "environ": dict(os.environ),
        "cwd": str(Path.cwd()),
        "descriptors": {fd: str(Path(folder, str(fd)).readlink()) for fd in sorted(open_now)},
        "inheritable": {fd: os.get_inheritable(fd) for fd in sorted(open_now)},
        "signals": {n: str(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {signal.SIGINT}),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        "umask": os.umask(0o22),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups(), os.nice(0)],
        "affinity": sorted(os.sched_getaffinity(0)),
        "zone": [time.tzname, time.localtime(1e9).tm_hour],
        "streams": [_stream(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "originals": [sys.stdout is sys.__stdout__, sys.stdin is sys.__stdin__],
        "size": list(shutil.get_terminal_size()),
        "terminal": [os.isatty(fd) for fd in (0, 1, 2)],
        "lock": fcntl.fcntl(0, fcntl.F_GETFL),
        "name": sys.argv[0],
    }


def _stream(stream: object) -> list[str]:
    names = "name mode encoding errors newlines line_buffering write_through closed".split()
    return [*(f"{name}={getattr(stream, name)}" for name in names), type(stream).__name__]


if __name__ == "__main__":
    if sys.argv[1] == "--here":
        sys.argv[:] = ["orchestrate", *sys.argv[2:]]
        sys.exit(report())
    warm_process.MODULES = ()
    become(warm_process.stay_warm(Path(sys.argv[1]), float(sys.argv[2])), report)
