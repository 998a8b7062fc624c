"""Samples the GPUs of an attempt until it is asked to end: one bounded CSV file for each capture.

A process of its own, because a wedged driver does not let go of who asked it. It reads five times a
second at first, half as often each time that it has done so for half an hour, and never spends more
than a twentieth of its time on it. ``captures.json`` says what was captured, and why not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from orchestrator.node_agent.base.node_layout import write_atomically
from orchestrator.node_agent.base.nvml_library import Nvml, open_library
from orchestrator.node_agent.facts.nvml import describe_gpus
from orchestrator.node_agent.telemetry import newest_readings
from orchestrator.node_agent.telemetry.readings import READINGS, CaptureSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence, TextIO

INTERVAL_S = 0.2
SLOWER_AFTER = 9000  # samples: then the interval doubles
MAX_BUSY = 0.05  # the part of the time that may go into asking the driver
FULL_EVERY = 25  # samples between two with all rows, which take many times as long
MAX_FILE_BYTES = 64 * 1024 * 1024
INDEX = "captures.json"
NO_GPU = "the job has no GPU on this node"
NO_ANSWER = "the driver did not answer"
FULL = "the file reached its largest size"


class CaptureFile:
    """One capture's CSV file: it appears with its first row, and never grows beyond its bound."""

    def __init__(self, path: str, reading: CaptureSource) -> None:
        self.rows = 0
        self.known = False  # whether any value was given
        self.trouble = ""
        self._path = path
        self._reading = reading
        self._bytes = 0
        self._file: TextIO | None = None

    def add(self, t: float, gpu: int, row: Sequence[int | float | None]) -> None:
        """Values that are not known stay empty. Once something failed, nothing is added."""
        if self.trouble:
            return
        self.known = self.known or any(value is not None for value in row[self._reading.keys :])
        cells = ("" if value is None else str(value) for value in row)
        self._write("%.3f,%d,%s\n" % (t, gpu, ",".join(cells)))
        self.rows += 1

    def _write(self, line: str) -> None:
        if self._bytes + len(line) > MAX_FILE_BYTES:
            self.trouble = FULL
            return
        try:
            if self._file is None:
                self._file = open(self._path, "w", encoding="ascii")
                self._file.write(",".join(("t", "gpu", *self._reading.columns)) + "\n")
            self._file.write(line)
        except OSError as error:
            self.trouble = error.strerror or str(error)
        self._bytes += len(line)

    def close(self) -> None:
        """Everything is in the file, or ``trouble`` says why not."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self.trouble = error.strerror or str(error)


class Sampler:
    """All captures of one attempt on one node."""

    def __init__(
        self, folder: str, kinds: Sequence[str], gpus: Sequence[int], report: str = ""
    ) -> None:
        self._folder = folder
        self._report, self._report_at = report, 0.0
        self._latest: dict[str, dict[int, Sequence[Any]]] = {kind: {} for kind in kinds}
        self._tables = {kind: CaptureFile(os.path.join(folder, kind + ".csv"), READINGS[kind])
                        for kind in kinds}  # fmt: skip
        self._devices: dict[int, Any] = {}
        self._described: list[dict[str, Any]] = []
        self._began, self._zero = time.time(), time.monotonic()
        self._samples = 0
        self._busy_s = 0.0
        self._gpus = gpus
        self._nvml: Nvml | None = None
        self._why_not = NO_ANSWER if gpus else NO_GPU

    def _open_driver(self) -> None:
        self._nvml, self._why_not = open_library()
        if self._nvml is not None:
            self._find_devices(self._nvml, self._gpus)

    def _find_devices(self, nvml: Nvml, gpus: Sequence[int]) -> None:
        self._described = [g for g in describe_gpus(nvml)["gpus"] if g["index"] in gpus]
        for index in gpus:
            device, failed = nvml.device(index)
            if not failed:
                self._devices[index] = device
        if not self._devices:
            self._why_not = "the driver gives no access to GPUs %s" % ", ".join(map(str, gpus))

    def run(self) -> None:
        """Until SIGTERM, which is blocked: whoever starts this process has done so."""
        self._write_index(ended=False)  # the driver may not answer
        if self._gpus:
            self._open_driver()
            self._write_index(ended=False)
        pause_s = 0.0
        while self._devices and not _asked_to_end(pause_s):
            pause_s = self._pause_s(self._sample(self._samples % FULL_EVERY == 0))
        if self._devices:
            self._sample(in_full=True)
        for table in self._tables.values():
            table.close()
        self._write_index(ended=True)

    def _sample(self, in_full: bool) -> float:
        """What it took, in seconds."""
        assert self._nvml is not None
        began = time.monotonic()
        for index, device in self._devices.items():
            for kind, table in self._tables.items():
                rows = READINGS[kind].read(self._nvml, device, in_full)
                t = self._began + time.monotonic() - self._zero
                for row in rows:
                    table.add(t, index, row)
                    if newest_readings.is_whole(kind, row):
                        self._latest[kind][index] = row
        if self._report and began >= self._report_at:
            self._report_at = began + newest_readings.EVERY_S
            newest_readings.report(self._report, self._latest)
        took_s = time.monotonic() - began
        self._samples += 1
        self._busy_s += took_s
        return took_s

    def _pause_s(self, took_s: float) -> float:
        interval_s: float = INTERVAL_S * 2 ** (self._samples // SLOWER_AFTER)
        return max(interval_s - took_s, took_s * (1 / MAX_BUSY - 1))

    def _write_index(self, ended: bool) -> None:
        seconds = time.monotonic() - self._zero
        index = {
            "schema_version": 1,
            "captures": {kind: self._state(table) for kind, table in self._tables.items()},
            "gpus": self._described,
            "began": self._began,
            "seconds": seconds if ended else None,
            "samples": self._samples,
            "busy": self._busy_s / seconds if ended and seconds > 0 else None,
        }
        write_atomically(os.path.join(self._folder, INDEX), json.dumps(index).encode())

    def _state(self, table: CaptureFile) -> dict[str, Any]:
        why_not = self._why_not
        if not why_not and table.rows and not table.known:
            why_not = "the driver gives none of these values"
        return {"rows": table.rows, "missing": why_not, "trouble": table.trouble}


def _asked_to_end(within_s: float) -> bool:
    return signal.sigtimedwait({signal.SIGTERM}, within_s) is not None


def main() -> None:
    """Arguments: the folder; captures with commas; indices of GPUs with commas; the file that a
    line goes to now and then, or nothing.
    """
    folder, kinds, gpus, report = sys.argv[1:5]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # unless it is
    indices = [int(index) for index in gpus.split(",") if index]
    Sampler(folder, kinds.split(","), indices, report).run()
