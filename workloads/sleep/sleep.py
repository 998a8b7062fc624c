"""Counts lines and sleeps between them: uses no GPU, no memory to speak of, no network."""

from __future__ import annotations

import argparse
import time

import orchestrate_kit as kit


def main() -> None:
    """Write ``--lines`` numbered lines, ``--pause`` seconds apart, and report each as progress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50)
    parser.add_argument("--pause", type=float, default=0.1)
    asked = parser.parse_args()
    rank = kit.rank()
    for line in range(asked.lines):
        print(f"line {line} of rank {rank}", flush=True)
        kit.progress(line + 1, asked.lines, "lines")
        time.sleep(asked.pause)


if __name__ == "__main__":
    main()
