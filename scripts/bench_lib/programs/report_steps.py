"""A rank that reports ten steps a second and writes a line for each, until it is stopped."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

STEP_S = 0.1


def main() -> None:
    """Steps are due at fixed times, so that a late one is not made up for by a slower pace."""
    rank = os.environ["RANK"]
    report = Path(os.environ["ORCHESTRATE_REPORT_DIR"], f"rank-{rank}.jsonl")
    begin = time.monotonic()
    with report.open("a", buffering=1) as file:
        for step in itertools.count():
            record = {"type": "metric", "name": "loss", "value": 1 / (step + 1), "unit": "nats"}
            file.write(json.dumps({**record, "step": step, "t": time.time()}) + "\n")
            print(f"rank {rank} step {step}", flush=True)
            time.sleep(max(0.0, begin + (step + 1) * STEP_S - time.monotonic()))


if __name__ == "__main__":
    main()
