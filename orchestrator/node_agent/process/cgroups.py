"""A control group of one's own per attempt: what is in it cannot leave, whatever it forgets.

Where version 2 of cgroups is mounted and the supervisor may make a group below its own, its
children enter a new one before they become anything else. Everything that they start is in it,
also what drops its environment and outlives every parent. Elsewhere the marker in the environment
and descent from the supervisor have to do.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from orchestrator.node_agent.base.digests import sha256
from orchestrator.node_agent.base.node_layout import AttemptLayout, write_atomically
from orchestrator.node_agent.process.processes import find_process, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PREFIX = "orchestrate-"
KILL = "cgroup.kill"  # since Linux 5.14
FREEZE_S = 1.0
POLL_S = 0.01
MAX_BYTES = 4 * 1024 * 1024
MAX_GROUPS = 4096
OPEN_GROUP = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class ControlGroup:
    """The group at ``path``. Make one with :meth:`create`, find one with :meth:`recorded`."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def create(cls, attempt: AttemptLayout) -> ControlGroup | None:
        """A new group below our own, recorded in the attempt's directory; None where we may not."""
        own = own_group()
        if own is None:
            return None
        group = cls(os.path.join(own, name_of(attempt)))
        try:
            write_atomically(attempt.cgroup, group.path.encode())
            os.mkdir(group.path, 0o755)
        except OSError:
            return None
        if group._admits():
            return group
        group.remove()
        return None

    @classmethod
    def recorded(cls, attempt: AttemptLayout) -> ControlGroup | None:
        """The attempt's group while it exists. Others could have written the record: it counts
        only if it names the group that this very attempt would have made.
        """
        place, own = _hierarchy()
        try:
            with open(attempt.cgroup) as file:
                path = file.read(4096)
            plain = os.path.realpath(path) == path and os.path.isdir(path)
        except (OSError, ValueError):
            return None
        if own is None or not plain or os.path.basename(path) != name_of(attempt):
            return None
        return cls(path) if _is_below(path, place) and not _is_below(own, path) else None

    def _admits(self) -> bool:
        """Whether a process may really enter: a short-lived one tries."""
        pid = os.fork()
        if pid == 0:
            self._try_to_enter()
        return os.waitpid(pid, 0)[1] == 0

    def _try_to_enter(self) -> NoReturn:
        try:
            self.enter()
            os._exit(0)
        finally:
            os._exit(1)

    def enter(self) -> None:
        """Move this process in."""
        fd = os.open(os.path.join(self.path, "cgroup.procs"), OPEN_GROUP)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)

    def pids(self) -> list[int]:
        """The processes in the group and in groups below it, ended ones excepted."""
        found: list[int] = []
        for path in self._folders():
            with suppress(OSError), open(os.path.join(path, "cgroup.procs")) as file:
                found += [int(line) for line in file.read(MAX_BYTES).split() if int(line) > 0]
        return found

    def _folders(self) -> list[str]:
        """The group's directory and those below, from the top."""
        folders = [above for above, _, _ in os.walk(self.path)]
        return folders[:MAX_GROUPS]

    def kill(self) -> None:
        """KILL everything in it at once, so that nothing can be started in between."""
        if not self._write(KILL, b"1"):
            self._freeze_and_kill()

    def _freeze_and_kill(self) -> None:
        """For older kernels: what is frozen starts nothing, and dies of KILL all the same."""
        self._write("cgroup.freeze", b"1")
        deadline = time.monotonic() + FREEZE_S
        while not self._frozen() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for found in filter(None, map(find_process, self.pids())):
            if found.pid in self.pids():  # or another process could have got this pid since
                send_signal(found.pid, found.start_time, signal.SIGKILL)
        self._write("cgroup.freeze", b"0")

    def _frozen(self) -> bool:
        try:
            with open(os.path.join(self.path, "cgroup.events")) as file:
                return "frozen 1" in file.read(4096).splitlines()
        except OSError:
            return True

    def _write(self, name: str, text: bytes) -> bool:
        try:
            fd = os.open(os.path.join(self.path, name), OPEN_GROUP)
        except OSError:
            return False
        try:
            return os.write(fd, text) > 0
        except OSError:
            return False
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove it with the groups below; one that is in use stays."""
        for path in reversed(self._folders()):
            with suppress(OSError):
                os.rmdir(path)


def name_of(attempt: AttemptLayout) -> str:
    """No other attempt's group is called like this."""
    return PREFIX + sha256(attempt.root.encode()).hexdigest()[:24]


def own_group() -> str | None:
    """The directory of the group that this process is in; None without version 2."""
    return _hierarchy()[1]


def _hierarchy() -> tuple[str, str | None]:
    """(where version 2 is mounted, our own group there).

    A mount may be covered by another, or show other groups than those that we see: the group that
    lists us is ours.
    """
    inside = _inside()
    for place, root in _mounts() if inside else []:
        path = os.path.normpath(f"{place}/{os.path.relpath(str(inside), root)}")
        if _is_below(path, place) and str(os.getpid()) in _lines(f"{path}/cgroup.procs"):
            return place, path
    return "", None


def _inside() -> str | None:
    """The name of our group, from where the hierarchy begins for us."""
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::/"):
            return line[3:]
    return None


def _mounts() -> list[tuple[str, str]]:
    """(mount point, which group is seen there)."""
    found = []
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            root, place = before.split()[3:5]
            found.append((place, root))
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read(MAX_BYTES).splitlines()
    except OSError:
        return []


def _is_below(path: str, above: str) -> bool:
    """Whether ``path`` is ``above`` or in it."""
    return path == above or path.startswith(above.rstrip("/") + "/")
