"""The processes of runs on the machines where nodes live: found, counted, signalled, held up."""

from __future__ import annotations

import atexit
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tests.time_limits import communicate, scaled

# Answers a line of JSON with a line of JSON, for as long as it is asked. The question comes on
# standard input, so that it does not find itself: {"run", "rank", "signal", "text"}.
LOOK = """
import json, os, signal, sys

def look(asked):
    run, rank = asked["run"].encode(), asked.get("rank")
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            handle = os.pidfd_open(int(name))
        except OSError:
            continue
        try:
            environ, words = (
                open(f"/proc/{name}/{f}", "rb").read() for f in ("environ", "cmdline")
            )
        except OSError:
            continue
        finally:
            handles.append(handle)
        variables = environ.split(b"\\0")
        marked = b"ORCHESTRATE_RUN_ID=" + run in variables
        hit = marked or run in words
        if rank is not None:
            hit = marked and b"RANK=%d" % rank in variables and b"rank_shim" not in words
        if asked.get("text"):
            hit = asked["text"].encode() in words
        if hit and int(name) != os.getpid():
            if asked.get("signal"):
                signal.pidfd_send_signal(handle, asked["signal"])
            yield int(name), words.replace(b"\\0", b" ").decode(errors="replace")

for line in sys.stdin:
    handles = []
    print(json.dumps(list(look(json.loads(line)))), flush=True)
    for handle in handles:
        os.close(handle)
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


class Lookout:
    """A process on a machine that says what runs there: to start one takes longer than to ask."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def is_there(self) -> bool:
        return self._process.poll() is None

    def ask(self, asked: Mapping[str, object]) -> list[tuple[int, str]]:
        """Raises ``OSError`` if it is not there any more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], scaled(30))
        assert ready, f"no answer within {scaled(30):.0f} s"
        answer = self._process.stdout.readline()
        if not answer:
            raise BrokenPipeError
        return [(pid, words) for pid, words in json.loads(answer)]

    def close(self) -> None:
        self._process.kill()
        with suppress(OSError):
            self._process.communicate()


LOOKOUTS: dict[tuple[str, ...], Lookout] = {}


@atexit.register
def close_lookouts() -> None:
    """None outlives the tests."""
    for lookout in LOOKOUTS.values():
        lookout.close()


def lookout_at(argv: Sequence[str]) -> Lookout:
    """The one that ``argv`` starts, or has started. Those of hosts that are gone are forgotten."""
    for key, lookout in list(LOOKOUTS.items()):
        if not lookout.is_there:
            lookout.close()
            del LOOKOUTS[key]
    if (key := tuple(argv)) not in LOOKOUTS:
        LOOKOUTS[key] = Lookout(argv)
    return LOOKOUTS[key]


def look(machine: Machine, host: str, **asked: object) -> list[tuple[int, str]]:
    """(pid, words) of the processes on ``host`` that belong to a run; ``signal`` is sent to them.

    ``rank``: only that rank's own process. ``text``: instead of the run's marker, what must stand
    on the command line.
    """
    argv = machine.exec_argv(host, [sys.executable, "-I", "-S", "-c", LOOK])
    asked = {"run": "", **asked}
    try:
        return lookout_at(argv).ask(asked)
    except OSError:  # its host was without power in between, say
        LOOKOUTS.pop(tuple(argv)).close()
        return lookout_at(argv).ask(asked)


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
