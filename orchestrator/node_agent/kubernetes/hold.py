"""The first process of a pod that a run made: keeps it alive for the coordinator's agents and for
the ranks, takes in orphans, and ends once nobody needs the pod any more.

Its text is part of the pod's manifest, so it imports nothing of this package, and needs no more
than Python 3.8.
"""

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn, Optional

POLL_S = 1.0
TERMINATED = 143


def _others() -> "list[int]":
    """The other processes of this pod."""
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _adopted() -> "list[int]":
    """Those that the first process took in: supervisors, but neither agents nor ranks."""
    found = []
    for pid in _others():
        try:
            with open("/proc/%d/stat" % pid) as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(pid)
    return found


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _end(_: int, __: "Optional[FrameType]") -> "NoReturn":
    """Kubernetes ends the pod: supervisors let their ranks save themselves. Who does not end in
    time is killed by Kubernetes.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for pid in _adopted():
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError:
            pass
    while _adopted():
        _reap()
        time.sleep(POLL_S / 10)
    os._exit(TERMINATED)


def main() -> None:
    """``sys.argv``: for how many seconds nobody may need the pod."""
    idle_s = float(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    needed = time.monotonic()
    while time.monotonic() - needed < idle_s:
        _reap()
        if _others():
            needed = time.monotonic()
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
