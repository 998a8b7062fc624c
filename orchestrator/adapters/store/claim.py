"""One coordinator per run: a lock that the kernel lets go of, however its owner dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.liveness import (
    Liveness,
    ProcessIdentity,
    identify_self,
    liveness,
    read_identity,
    write_identity,
)
from orchestrator.core.base.errors import BusyError

# Some shared file systems have no locks; there the recorded identity alone must do.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def claimed(folder: RunFolder, *, at: float) -> Iterator[None]:
    """While inside, this process coordinates the run, and ``coordinator.json`` says so.

    ``at``: wall clock in seconds, recorded as the run's beginning unless an earlier coordinator
    recorded one. The lock is not inherited by programs that are started. Raises
    :class:`BusyError` when somebody else coordinates the run, and ``OSError``.
    """
    lock = os.open(folder.coordinator_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = read_identity(folder.coordinator)
        if not _lock(lock, before):
            raise _held(folder, before)
        began = before.at if before is not None else at
        write_identity(folder.coordinator, replace(identify_self(at), at=began))
        yield
    finally:
        os.close(lock)


def _lock(lock: int, before: ProcessIdentity | None) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return before is None or before.pid == os.getpid() or liveness(before) is Liveness.DEAD
    return True


def _held(folder: RunFolder, holder: ProcessIdentity | None) -> BusyError:
    who = f"process {holder.pid} on {holder.host}" if holder is not None else "another process"
    return BusyError(
        f"run {folder.run_id} is coordinated by {who}",
        id="OR-STORE-008",
        where=folder.path,
        remedy=f"orchestrate attach {folder.run_id}",
    )
