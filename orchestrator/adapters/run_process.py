"""A run as a process that is waited for: bounded in time, its output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.store.atomic_files import make_private_dir

GRACE_S = 180.0  # for a run to end and clean up after it is asked to
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How the process ended. ``ended_by``: what we ended it for, or empty; ``was_asked``: a signal
    asked us to.
    """

    exit_code: int
    ended_by: str = ""
    was_asked: bool = False


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT that arrive while inside, instead of what they do."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: asked.append(got))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_process(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: str,
    output: Path,
    limit_s: float,
    meanwhile: Callable[[], None] = lambda: None,
    signals: Sequence[int] | None = None,
) -> CommandOutcome:
    """Run ``argv``, a command of ours or a script that becomes one, to its end.

    SIGTERM and SIGINT are passed on, those too that a caller who is inside ``stop_signals`` had
    before; after ``limit_s`` seconds the run is asked to end, and killed
    when it has not within ``GRACE_S``. ``meanwhile`` is called every ``POLL_S`` or so. Raises
    ``OSError``.
    """
    make_private_dir(output.parent)
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        with stop_signals() if signals is None else nullcontext(signals) as asked:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
            return _wait(process, asked, limit_s, meanwhile)
    finally:
        os.close(fd)


def _wait(
    process: subprocess.Popen[bytes],
    asked: Sequence[int],
    limit_s: float,
    meanwhile: Callable[[], None],
) -> CommandOutcome:
    deadline, ended_by = time.monotonic() + limit_s, ""
    while True:
        try:
            return CommandOutcome(process.wait(POLL_S), ended_by, was_asked=bool(asked))
        except subprocess.TimeoutExpired:
            meanwhile()
        overdue = time.monotonic() > deadline
        if ended_by and overdue:
            process.kill()
        elif not ended_by and (asked or overdue):
            ended_by = "asked to stop" if asked else f"over its limit of {limit_s:g} s"
            deadline = time.monotonic() + GRACE_S
            process.terminate()
