"""One pytest run in a copy of the checkout, bounded; nothing that it started is left behind."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from orchestrator.node_agent.process.processes import list_descendants, sweep_processes

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
TEST_S = 30.0
SWEEP_S = 10.0
WITNESS = Path(__file__).resolve().with_name("witness.py")
OPTIONS = ("-q", "--no-header", "--tb=short", "-p", "no:cacheprovider")


def adopt_orphans() -> None:
    """What tests start and leave behind, however detached, becomes a child of this process, which
    itself ends with its parent.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    os._exit(128 + number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """``collect``, or a test's ``setup``, ``call`` or ``teardown``, and how it went. ``loads``: it
    did not fail for want of a name or a module.
    """

    test: str
    phase: str
    outcome: str
    loads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What pytest did with a selection. ``output`` is all that it printed."""

    phases: tuple[Phase, ...]
    timed_out: bool
    seconds: float
    output: str

    def ran(self, selection: str) -> list[Phase]:
        """The tests of ``selection`` that ran, passed or not."""
        begun = [p for p in self.phases if p.phase == "call" and p.outcome != "skipped"]
        return [phase for phase in begun if _belongs(phase.test, selection)]

    def is_sound(self, selection: str) -> bool:
        """Whether tests of ``selection`` ran, and nothing about them failed."""
        failed = [p for p in self.phases if p.outcome == "failed" and _belongs(p.test, selection)]
        return bool(self.ran(selection)) and not failed


def _belongs(test: str, selection: str) -> bool:
    rest = test.removeprefix(selection)
    return rest == "" or (rest != test and rest.startswith(("[", "::", "/")))


def run_tests(
    tree: Path, scratch: Path, tests: Sequence[str], *, limit_s: float, first_only: bool
) -> Trial:
    """Run ``tests`` in ``tree``. Whoever calls has adopted orphans; they are all ended here.

    ``scratch`` must exist; ``first_only`` stops at the first failure.
    """
    report, output, temporary = (scratch / name for name in ("report", "output", "t"))
    temporary.mkdir()
    options = [*OPTIONS, f"--timeout={TEST_S:g}", *(["-x"] if first_only else [])]
    command = [sys.executable, "-P", str(WITNESS), str(report), *options, *tests]
    began = time.monotonic()
    timed_out = not _run(command, tree, {**os.environ, "TMPDIR": str(temporary)}, output, limit_s)
    seconds = time.monotonic() - began
    told = report.read_text().splitlines() if report.exists() else []
    phases = tuple(Phase(**json.loads(line)) for line in told if line.endswith("}"))
    text = output.read_text("utf-8", "replace")
    return Trial(phases=phases, timed_out=timed_out, seconds=seconds, output=text)


def _run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path, limit_s: float
) -> bool:
    """Whether it ended in time. All that it started is ended, also when we are interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ended, interrupted = False, False
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
            ended = True
        except subprocess.TimeoutExpired:
            pass
        except KeyboardInterrupt:
            interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sweep_processes(lambda: list_descendants(os.getpid()), SWEEP_S)
        process.wait()
    if interrupted:
        os._exit(128 + signal.SIGINT)
    signal.signal(signal.SIGINT, _leave)
    return ended
