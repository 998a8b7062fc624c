"""A profile of this rank by torch's own profiler, when `--capture profile` asked for one.

It begins and ends between two steps, where the script marks them. While it is taken, and while its
trace is written, measured windows are closed: what a profiler costs is in no figure of theirs. One
rank of each of the first nodes is profiled; the others only keep their windows closed meanwhile.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from ._reports import output_dir, rank_in_run, replace_json
from ._trace import kernels_of
from ._windows import resume_windows, suspend_windows, window_is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

WANTED = "ORCHESTRATE_PROFILE"  # SECONDS@AFTER, or SECONDS@AFTER/meanwhile on other nodes
MEANWHILE = "/meanwhile"
FOLDER = "captures/profile"
MAX_TRACE_BYTES = 1 << 30  # of JSON: reading it takes several times as much memory
NOT_BEGUN = "the rank ended before %g s had passed since its first step"
NOT_ENDED = "the rank ended while it was profiled"
# Whatever is wrong with a profile must not end the job.
FAILURES = (RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
NO_TORCH = "the script does not use torch in this process"


class StepProfile:
    """One rank's profile, driven by its marks."""

    def __init__(self, seconds: float, after_s: float, chosen: bool) -> None:
        self._seconds = seconds
        self._after_s = after_s
        self.chosen = chosen
        self._first: Optional[float] = None
        self._began: Optional[float] = None
        self._profiler: Any = None
        self._steps = 0
        self._kind = False  # of the mark that it began at: with both kinds, a step has two marks
        self._over = False
        self._closing = False
        self._asked = False  # whether the script leaves what is profiled out of its own figures
        self._thread = 0

    def tell(self) -> bool:
        """Whether it runs."""
        self._asked = True
        return self._began is not None

    def mark(self, in_window: bool) -> None:
        """Between two steps; of one thread, the first that marks. ``in_window``: it may also begin
        where a measured window is open.
        """
        self._thread = self._thread or threading.get_ident()
        if not self._over and self._thread == threading.get_ident():
            self._mark(in_window)

    def _mark(self, in_window: bool) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._note(reason=NOT_BEGUN % self._after_s)
        if self._began is None:
            if now - self._first >= self._after_s and (in_window or not window_is_open()):
                self._kind = in_window
                self._begin(now)
        elif in_window is self._kind:
            self._steps += 1
            if self._closing or now - self._began >= self._seconds:
                self._end(now)

    def _begin(self, now: float) -> None:
        suspend_windows()
        self._began = now
        reason = self._start() if self.chosen else ""
        self._note(reason=reason or NOT_ENDED)
        if reason:
            self._finish()

    def _start(self) -> str:
        """Why there is no profile; empty where it runs."""
        torch = sys.modules.get("torch")
        if torch is None:
            return NO_TORCH
        try:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            profiler = torch.profiler.profile(activities=activities)
            profiler.start()
        except FAILURES as error:
            return "torch's profiler did not start: %s" % error
        self._profiler = profiler
        return ""

    def _end(self, now: float) -> None:
        """The others wait for one step more: in it they wait for the trace of those profiled."""
        assert self._began is not None
        if not self.chosen and not self._closing:
            self._closing = True
            return
        if self.chosen:
            self._note(**self._stop(now - self._began))
        self._finish()

    def _finish(self) -> None:
        self._profiler = None
        self._began, self._over = None, True
        resume_windows()

    def _stop(self, seconds: float) -> Dict[str, Any]:
        """What is known of the profile once it has ended."""
        torch = sys.modules["torch"]
        trace = _folder() / ("rank-%d.trace.json" % rank_in_run())
        try:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(trace))
            found = kernels_of(_read_trace(trace))
            _compress(trace)
        except FAILURES as error:
            return {"reason": "the trace was not written: %s" % error}
        return {"reason": "", "seconds": seconds, "steps": self._steps, **found}

    def _note(self, **fields: Any) -> None:
        """Written anew each time: whatever ends the rank, the last state is there."""
        if not self.chosen:
            return
        record = {"schema_version": 1, "tool": "torch.profiler", "rank": rank_in_run()}
        path = _folder() / ("rank-%d.json" % rank_in_run())
        try:
            replace_json(path, {**record, "asked": self._asked, **fields})
        except OSError as error:
            sys.stderr.write("orchestrate_kit: no profile: %s\n" % error)


def _folder() -> Path:
    folder = output_dir() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read_trace(path: Path) -> Dict[str, Any]:
    if path.stat().st_size > MAX_TRACE_BYTES:
        path.unlink()
        raise OSError("it has more than %d bytes; profile fewer seconds" % MAX_TRACE_BYTES)
    with path.open(encoding="utf-8", errors="replace") as file:
        document: Dict[str, Any] = json.load(file)
    return document


def _compress(path: Path) -> None:
    with path.open("rb") as plain, gzip.open(str(path) + ".gz", "wb", compresslevel=3) as packed:
        shutil.copyfileobj(plain, packed)
    path.unlink()


def wanted_profile() -> Optional[StepProfile]:
    """As the plan asks; None where it does not, or elsewhere than under orchestrate."""
    text = os.environ.get(WANTED, "")
    if not text:
        return None
    times = text[: -len(MEANWHILE)] if text.endswith(MEANWHILE) else text
    seconds, _, after = times.partition("@")
    chosen = times == text and os.environ.get("LOCAL_RANK", "0") == "0"
    return StepProfile(float(seconds), float(after), chosen)
