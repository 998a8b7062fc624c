"""Counts lines and sleeps between them: uses no GPU, no memory to speak of, no network."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the kit, when started by hand

import orchestrate_kit as kit


@dataclass(frozen=True)
class Settings:
    """So many lines, and the seconds between them."""

    lines: int
    pause: float


def main() -> None:
    """Write numbered lines, and report each as progress."""
    settings = kit.parse(Settings)
    rank = kit.rank()
    for line in range(settings.lines):
        print(f"line {line} of rank {rank}", flush=True)
        kit.progress(line + 1, settings.lines, "lines")
        time.sleep(settings.pause)


if __name__ == "__main__":
    main()
