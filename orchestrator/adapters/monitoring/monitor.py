"""The metrics of one home at a moment: runs under way, their nodes, history, schedules.

A monitor that lives on reads of each file only what is new, so that a scrape is cheap.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from orchestrator import __version__
from orchestrator.adapters.monitoring.exposition import Exposition, render_samples
from orchestrator.adapters.monitoring.home_samples import home_samples
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.monitoring import kept_metrics as kept
from orchestrator.core.monitoring.metric import Sample


class Monitor:
    """May be asked from several threads; answers one after the other."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()

    def render(self, now: float, accept: str = "") -> Exposition:
        """What a scrape at ``now`` (seconds since the epoch) is answered. What cannot be read is
        left out and counted. Raises :class:`UsageError` where prometheus-client is not installed.
        """
        return render_samples(self.collect(now), accept)

    def collect(self, now: float) -> list[Sample]:
        """Every sample at ``now``."""
        with self._lock:
            return list(self._collect(now))

    def _collect(self, now: float) -> Iterator[Sample]:
        began = time.perf_counter()
        yield kept.BUILD.sample(1, __version__)
        yield from home_samples(self._layout)
        yield kept.UNREADABLE.sample(0)
        yield kept.COLLECT_SECONDS.sample(time.perf_counter() - began)
