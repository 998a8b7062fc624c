"""A rank that saves when it is first asked to end, and leaves without it when asked again.

    save_on_term.py SECONDS    how long saving takes

The last rank fails as soon as `~/fail-RUN` is there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

POLL_S = 0.05
FAILED, ASKED_AGAIN = 3, 9


class Saver:
    """Answers SIGTERM."""

    def __init__(self, seconds: float, target: Path) -> None:
        self.seconds = seconds
        self.target = target
        self.asked = 0

    def answer(self, *_: object) -> None:
        self.asked += 1
        os.write(1, b"asked %d\n" % self.asked)
        if self.asked > 1:
            os._exit(ASKED_AGAIN)
        time.sleep(self.seconds)
        self.target.touch()
        sys.exit(0)


def main() -> int:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    target = Path(os.environ["ORCHESTRATE_OUTPUT_DIR"], f"saved-{rank}")
    signal.signal(signal.SIGTERM, Saver(float(sys.argv[1]), target).answer)
    print("ready", flush=True)
    fail = Path(f"~/fail-{os.environ['ORCHESTRATE_RUN_ID']}").expanduser()
    while rank != ranks - 1 or not fail.exists():
        time.sleep(POLL_S)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
