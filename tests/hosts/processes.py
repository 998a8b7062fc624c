"""The processes of runs on the machines where nodes live: found, counted, signalled, held up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tests.time_limits import communicate, scaled

# Told on standard input, so that it does not find itself: {"run", "rank", "signal", "text"}.
LOOK = """
import json, os, signal, sys
asked = json.load(sys.stdin)
run, rank = asked["run"].encode(), asked.get("rank")
found = []
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        handle = os.pidfd_open(int(name))
        environ, words = (open(f"/proc/{name}/{f}", "rb").read() for f in ("environ", "cmdline"))
    except OSError:
        continue
    variables = environ.split(b"\\0")
    marked = b"ORCHESTRATE_RUN_ID=" + run in variables
    hit = marked or run in words
    if rank is not None:
        hit = marked and b"RANK=%d" % rank in variables and b"rank_shim" not in words
    if asked.get("text"):
        hit = asked["text"].encode() in words
    if hit and int(name) != os.getpid():
        found.append([int(name), words.replace(b"\\0", b" ").decode(errors="replace")])
        if asked.get("signal"):
            signal.pidfd_send_signal(handle, asked["signal"])
print(json.dumps(found))
"""


# Holds the lock of a run's share of a node as soon as its locks are reserved: the launch hangs.
HOLD = """
import fcntl, os, sys, time
share = sys.argv[1]
deadline = time.monotonic() + 600
while time.monotonic() < deadline:
    try:
        file = os.open(share + "/lock", os.O_RDWR)
    except FileNotFoundError:
        time.sleep(0.002)
        continue
    fcntl.flock(file, fcntl.LOCK_EX)
    if os.path.exists(share + "/epoch"):
        sys.stdin.read()
        break
    os.close(file)
"""


class Machine(Protocol):
    """Where nodes live: the virtual hosts, or this machine."""

    @property
    def names(self) -> Sequence[str]: ...

    def exec_argv(self, name: str, argv: Sequence[str]) -> list[str]: ...


class Here:
    """This machine as the only node's host."""

    names: Sequence[str] = ("here",)

    def exec_argv(self, name: str, argv: Sequence[str]) -> list[str]:
        return list(argv)


@contextmanager
def launch_held(machine: Machine, host: str, share: str) -> Iterator[None]:
    """While inside, a launch on ``host`` hangs half-way in the directory ``share``."""
    argv = machine.exec_argv(host, [sys.executable, "-I", "-S", "-c", HOLD, share])
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as holder:
        yield
        communicate(holder, 10)


def look(machine: Machine, host: str, **asked: object) -> list[tuple[int, str]]:
    """(pid, words) of the processes on ``host`` that belong to a run; ``signal`` is sent to them.

    ``rank``: only that rank's own process. ``text``: instead of the run's marker, what must stand
    on the command line.
    """
    argv = machine.exec_argv(host, [sys.executable, "-I", "-S", "-c", LOOK])
    asked = {"run": "", **asked}
    done = subprocess.run(
        argv,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )
    return [(pid, words) for pid, words in json.loads(done.stdout)]


def remains(machine: Machine, run: str, hosts: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Every process of ``run``, ranks and supervisors, by host; empty when nothing is left."""
    seen = {host: look(machine, host, run=run) for host in hosts or machine.names}
    return {host: found for host, found in seen.items() if found}


def kill_rank(machine: Machine, host: str, run: str, rank: int, number: int) -> float:
    """Signal one rank's process by its identity; the wall clock before that."""
    at = time.time()
    found = look(machine, host, run=run, rank=rank, signal=number)
    assert len(found) == 1, f"rank {rank} of {run} on {host}: {found}"
    return at


def children(parent: int) -> list[int]:
    """The processes that ``parent`` started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, above = path.read_text().rpartition(")")[2].split()[:2]
            if int(above) == parent and state not in "ZX":
                found.append(int(path.parent.name))
    return found
