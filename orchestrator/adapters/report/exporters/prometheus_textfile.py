"""The last run of each workload and cluster as a file for node_exporter's textfile collector.

``ORCHESTRATE_TEXTFILE_DIR`` names the collector's folder; without it nothing is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from orchestrator.adapters.monitoring.exposition import render_samples
from orchestrator.adapters.monitoring.textfile import write_for_collector
from orchestrator.adapters.report.finished_run import FinishedRun
from orchestrator.core.monitoring.history_samples import last_run_samples

VARIABLE = "ORCHESTRATE_TEXTFILE_DIR"


def write_textfile(run: FinishedRun) -> None:
    """Replace the file of the run's workload and cluster. Raises ``OSError``, and
    :class:`UsageError` where prometheus-client is not installed.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return
    result = run.result
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", f"{result.cluster}-{result.workload}")[:100]
    samples = last_run_samples(run.entry.record)
    write_for_collector(Path(named) / f"orchestrate_{slug}.prom", render_samples(samples).content)
