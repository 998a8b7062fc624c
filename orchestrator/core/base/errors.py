"""Errors that people read, and the exit code each kind owns.

    OrchestrateError
    ├── UsageError           2    bad input; nothing was contacted
    ├── RunFailed            1    the job itself failed
    ├── PreflightError       4    a node is unreachable or not fit
    ├── BusyError           75    somebody holds the GPUs, or incomplete and resumable
    ├── DeadlineError      124    a phase ran out of its time
    └── InternalError       70    our bug

Every error says what happened, where, why, and what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The process exit codes that scripts rely on."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    DEGRADED = 3
    PREFLIGHT = 4
    REGRESSION = 5
    INTERNAL = 70
    BUSY = 75
    TIMED_OUT = 124
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A position in a file; ``line`` and ``column`` count from 1, 0 = unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n)]
        return ":".join(parts)


class OrchestrateError(Exception):
    """Base of all errors that are shown to people instead of a traceback."""

    exit_code: ClassVar[ExitCode] = ExitCode.RUN_FAILED

    def __init__(
        self, what: str, *, id: str, where: object = "", why: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.id = id
        self.where = str(where)
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head, *([f"  why: {self.why}"] if self.why else [])]
        return "\n".join([*lines, *([f"  next: {self.remedy}"] if self.remedy else [])])


class RunFailed(OrchestrateError):
    """The job ran and failed."""


class UsageError(OrchestrateError):
    """Bad input: nothing was contacted, nothing was changed."""

    exit_code = ExitCode.USAGE


class PreflightError(OrchestrateError):
    """A node cannot be reached or is not fit for the job."""

    exit_code = ExitCode.PREFLIGHT


class BusyError(OrchestrateError):
    """Somebody else holds what this run needs, or the run is incomplete and can be resumed."""

    exit_code = ExitCode.BUSY


class DeadlineError(OrchestrateError):
    """A phase ran out of its time budget."""

    exit_code = ExitCode.TIMED_OUT


class Interrupted(OrchestrateError):
    """Ctrl-C where no run was there to be stopped."""

    exit_code = ExitCode.INTERRUPTED


class Terminated(Interrupted):
    """Likewise, by SIGTERM."""

    exit_code = ExitCode.TERMINATED


class InternalError(OrchestrateError):
    """A bug of ours."""

    exit_code = ExitCode.INTERNAL
