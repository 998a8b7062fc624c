"""What the errors of a launcher's own processes mean to the user."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.errors import ExitCode


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherError:
    """What to do about an error, and ``code``, the exit code of a run that failed of it."""

    remedy: str
    code: ExitCode = ExitCode.RUN_FAILED
