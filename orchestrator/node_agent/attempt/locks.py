"""Locks of this machine: which run has which GPU, across work directories and agents of a user.

A lock is a flock on a file of its own, exclusive or shared. An agent takes it for a run that is
about to begin, and the run's supervisor inherits the very descriptor: there is no moment in between
at which nobody holds it, and whoever dies lets go. A record beside the file says who that is; it is
believed only while the process it names lives. Locks are tried in the order of their names, without
waiting, so that of several who want overlapping sets one gets its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import stat
import time
from contextlib import suppress

from orchestrator.node_agent.base.agent_errors import SYSTEM, UNSAFE, AgentFault
from orchestrator.node_agent.base.bootstrap import UnsafeDirectory, private_directory
from orchestrator.node_agent.base.digests import sha256
from orchestrator.node_agent.base.node_layout import lock_file
from orchestrator.node_agent.base.sysfs import boot_id, host_id
from orchestrator.node_agent.process.processes import is_alive, send_signal
from orchestrator.node_agent.process.rank_shim import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

EXCLUSIVE, SHARED = "exclusive", "shared"
MAX_RECORDS = 1000
MAX_RECORD_BYTES = 16384
# Not /dev/shm first: systemd empties it when the user's last session ends, supervisors or not.
PLACES = ("/tmp", "/dev/shm")  # noqa: S108 - the directory below is checked to be ours alone
RECORD = re.compile(r"[0-9a-f]{32}\Z")
SETTLE_S = 1.0  # whoever took a lock writes its record at once, and the killed are soon gone
POLL_S = 0.02
STALE_S = 3600.0
TOLD = ("run", "node", "user", "pid", "since", "coordinator")


class LockHeld(Exception):
    """Somebody else has lock ``lock``; ``holder`` is empty if nobody knows who."""

    def __init__(self, lock: str, holder: Mapping[str, Any]) -> None:
        super().__init__(lock)
        self.lock = lock
        self.holder = {key: holder[key] for key in TOLD} if holder else None

    def __str__(self) -> str:
        if self.holder is None:
            return f"{self.lock} is in use by another process of this user"
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.holder["since"]))
        who = "run {run} on node {node} (user {user}, process {pid}".format(**self.holder)
        origin = self.holder["coordinator"]
        return (
            f"{self.lock} is in use by {who}{origin and ', started from ' + origin}) since {since}"
        )


def holder_record(role: str) -> dict[str, Any]:
    """What a record says of this process."""
    pid = os.getpid()
    return {"role": role, "pid": pid, "start_time": start_time(pid)}


def sign_records(records: Mapping[str, Mapping[str, Any]]) -> None:
    """The supervisor has taken the locks over: from now on it is the holder that is named."""
    for path, record in records.items():
        write_record(path, {**record, **holder_record("supervisor")})


def remove_records(records: Sequence[str]) -> None:
    for path in records:
        with suppress(OSError):
            os.unlink(path)


def write_record(path: str, record: Mapping[str, Any]) -> None:
    """A record only informs: a full disk must not keep anybody from a lock."""
    staging = f"{path}.{os.getpid()}"
    try:
        with open(staging, "w") as file:
            file.write(json.dumps(record))
        os.rename(staging, path)
    except OSError:
        remove_records([staging])


class LockRoom:
    """The directory with this machine's lock files of this user."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def open(cls, places: Sequence[str] = PLACES) -> LockRoom:
        """Its name holds the machine's identity, should ``places`` be shared with another one.

        One that exists comes first, so that everybody uses the same. Raises :class:`AgentFault`.
        """
        name = f"orchestrate-{os.geteuid()}-{sha256(host_id().encode()).hexdigest()[:16]}"
        paths = [os.path.join(place, name) for place in places if _is_safe(place)]
        for path in [path for path in paths if os.path.lexists(path)] or paths:
            try:
                private_directory(path)
            except UnsafeDirectory as error:
                raise AgentFault(UNSAFE, str(error)) from error
            except OSError:
                continue
            return cls(path)
        raise AgentFault(SYSTEM, f"no place for lock files: {' and '.join(places)} are unusable")

    def keep(self) -> int:
        """A descriptor that keeps cleaners of temporary files away: they respect a lock on it."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return fd

    def take(self, name: str, mode: str, share: str) -> int:
        """A descriptor that holds the lock; -1 if the supervisor of our own share has it.

        Raises :class:`LockHeld` with the holder.
        """
        deadline = time.monotonic() + SETTLE_S
        while True:
            fd = self._try(name, mode)
            if fd is not None:
                return fd
            holder = self.holder(name, mode)
            if holder.get("share") == share and holder["role"] == "supervisor":
                return -1
            if holder.get("share") == share and _end_predecessor(holder):
                holder = {}
            if holder or time.monotonic() >= deadline:
                raise LockHeld(name, holder)
            time.sleep(POLL_S)

    def _try(self, name: str, mode: str) -> int | None:
        folder = os.path.join(self.root, name)
        private_directory(folder)
        path = os.path.join(folder, "lock")
        try:
            fd = lock_file(path, wait=False, shared=mode == SHARED)
        except AgentFault:
            return None
        if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
        os.close(fd)  # removed since it was opened: another file counts now
        return None

    def record(self, name: str, share: str) -> str:
        """Where the holder of ``name`` for ``share`` is recorded."""
        digest = sha256(share.encode()).hexdigest()[:32]
        return os.path.join(self.root, name, digest)

    def holder(self, name: str, mode: str) -> dict[str, Any]:
        """Who stands in the way of ``mode``, the earliest first; empty if nobody knows."""
        records = [r for r in self._records(name) if mode == EXCLUSIVE or r["mode"] == EXCLUSIVE]
        return min(records, key=lambda record: float(record["since"]), default={})

    def _records(self, name: str) -> Iterator[dict[str, Any]]:
        """Records of living processes. Old ones of dead processes are removed."""
        folder = os.path.join(self.root, name)
        for digest in filter(RECORD.match, os.listdir(folder)[:MAX_RECORDS]):
            path = os.path.join(folder, digest)
            try:
                record = _read_record(path)
                if record is not None:
                    yield record
                elif os.stat(path).st_mtime < time.time() - STALE_S:
                    os.unlink(path)
            except OSError:
                continue


def _is_safe(place: str) -> bool:
    """Whether others cannot replace what is ours in there."""
    try:
        mode = os.stat(place).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and (not mode & stat.S_IWOTH or bool(mode & stat.S_ISVTX))


def _read_record(path: str) -> dict[str, Any] | None:
    """The record if the process that it names lives."""
    try:
        with open(path) as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        complete = all(key in record for key in (*TOLD, "share", "mode", "role"))
        living = record["boot_id"] == boot_id() and is_alive(record["pid"], record["start_time"])
        float(record["since"])
    except (ValueError, KeyError, TypeError):
        return None
    return record if complete and living else None


def _end_predecessor(holder: Mapping[str, Any]) -> bool:
    """End an agent of our own share that an earlier, broken channel left behind."""
    if holder["pid"] == os.getpid():
        return False
    return send_signal(holder["pid"], holder["start_time"], signal.SIGKILL)
