"""A monitor that is scraped again and again, for `scripts/bench scrape`: JSON on standard output.

``scrape_home.py HOME SCRAPES``. Between scrapes the run goes on: each rank reports progress, and
each node energy. That is not timed.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

# As Prometheus 2.42 asks.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def main() -> None:
    """Scrape, and say how long each answer took."""
    from bench_lib.scrape import advance_run, in_another_process

    from orchestrator.adapters.monitoring.monitor import Monitor
    from orchestrator.adapters.store.layout import Layout

    layout = Layout(Path(sys.argv[1]))
    monitor = Monitor(layout)
    seconds, busy, content = [], [], b""
    for step in range(int(sys.argv[2])):
        began, used = time.perf_counter(), time.process_time()
        content = monitor.render(time.time(), ACCEPT).content
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - used)
        in_another_process(partial(advance_run, layout, step))
    series = sum(not line.startswith(b"#") for line in content.splitlines())
    counted = {"bytes": len(content), "series": series, "peak_mb": _peak_mb()}
    answer = {"wall_s": seconds, "cpu_s": busy, **counted}
    sys.stdout.write(json.dumps(answer) + "\n")


def _peak_mb() -> float:
    """Of this program alone: what ``wait4`` tells begins with the peak of who started it."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
