"""The last run of each workload and cluster as a file for node_exporter's textfile collector.

``ORCHESTRATE_TEXTFILE_DIR`` names the collector's folder; without it nothing is written. HELP and
TYPE are the same in every file, which the collector demands; files are replaced as a whole.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from orchestrator.adapters.report.finished_run import FinishedRun
from orchestrator.core.verdict.result import Status

VARIABLE = "ORCHESTRATE_TEXTFILE_DIR"
GAUGES = {
    "orchestrate_run_succeeded": "Whether the last run succeeded, also degraded.",
    "orchestrate_run_degraded": "Whether the last run used a fallback or lost a node.",
    "orchestrate_run_duration_seconds": "How long the last run took.",
    "orchestrate_run_finished_timestamp_seconds": "When the last run was over.",
    "orchestrate_run_figure": "A figure that the last run reported.",
}


def write_textfile(run: FinishedRun) -> None:
    """Replace the file of the run's workload and cluster. Raises ``OSError``."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    result = run.result
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", f"{result.cluster}-{result.workload}")[:100]
    path = Path(named) / f"orchestrate_{slug}.prom"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(render_textfile(run), encoding="utf-8", newline="\n")
        temporary.chmod(0o644)  # the exporter runs as another user
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def render_textfile(run: FinishedRun) -> str:
    """The file's text: no timestamps, each series once, a newline at the end."""
    samples: dict[str, list[str]] = {name: [] for name in GAUGES}
    for name, labels, value in _samples(run):
        samples[name].append(f"{name}{{{labels}}} {value:.17g}")
    lines = []
    for name, meaning in GAUGES.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", *samples[name]]
    return "\n".join(lines) + "\n"


def _samples(run: FinishedRun) -> Iterator[tuple[str, str, float]]:
    result = run.result
    own = f'cluster="{_escape(result.cluster)}",workload="{_escape(result.workload)}"'
    done = result.status in {Status.SUCCEEDED, Status.DEGRADED}
    yield "orchestrate_run_succeeded", own, float(done)
    yield "orchestrate_run_degraded", own, float(result.status is Status.DEGRADED)
    yield "orchestrate_run_duration_seconds", own, sum(result.timings.values())
    yield "orchestrate_run_finished_timestamp_seconds", own, run.now
    for name, metric in result.metrics.items():
        if metric.value is not None and math.isfinite(metric.value):
            labels = f'{own},figure="{_escape(name)}",unit="{_escape(metric.unit)}"'
            yield "orchestrate_run_figure", labels, metric.value


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
