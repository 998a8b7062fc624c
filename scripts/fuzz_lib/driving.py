"""What the two drivers share: one input, its bounds, and where they are."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
GUIDED, UNGUIDED = HERE / "guided.py", HERE / "unguided.py"
MAX_INPUT_BYTES = 8192
LIMIT_S = 2.0
MEMORY_BYTES = 1 << 30


class TooSlow(AssertionError):
    """One input took longer than its limit."""


class Counted:
    """A target with its bound of time (of this process, whatever else the machine does)."""

    def __init__(
        self, target: Callable[[bytes], None], *, fault_folder: Path, limit_s: float = LIMIT_S
    ) -> None:
        self.inputs = 0
        self._limit_s = limit_s
        self._target = target
        self._folder = fault_folder

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        began = time.process_time()
        try:
            self._target(data)
        except BaseException:
            self._keep(data)
            raise
        took = time.process_time() - began
        if took > self._limit_s:
            self._keep(data)
            raise TooSlow(f"{took:.1f} s for {len(data)} bytes")

    def _keep(self, data: bytes) -> None:
        (self._folder / "input").write_bytes(data)

    def tell(self) -> None:
        print(f"inputs={self.inputs}", file=sys.stderr, flush=True)


def bound_memory() -> None:
    """A reader that takes more than this for a few kilobytes ends with a ``MemoryError``."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES * 2, MEMORY_BYTES * 2))


def arguments() -> tuple[str, float, Path, Path, Path]:
    """(target, seconds, folder for faults, folder of seeds, folder of what earlier runs kept)."""
    name, seconds, faults, seeds, grown = sys.argv[1:6]
    return name, float(seconds), Path(faults), Path(seeds), Path(grown)
