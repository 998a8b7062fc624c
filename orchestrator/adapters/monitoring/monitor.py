"""The metrics of one home at a moment: runs and their nodes, history, schedules.

A monitor that is kept reads of each file only what is new, so that a scrape is cheap.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator import __version__
from orchestrator.adapters.monitoring.exposition import Exposition, Renderer
from orchestrator.adapters.monitoring.home_samples import (
    HistorySamples,
    ScheduleSamples,
    space_samples,
)
from orchestrator.adapters.monitoring.output_samples import OutputSamples
from orchestrator.adapters.monitoring.shown_runs import ShownRuns
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.monitoring import kept_metrics as kept
from orchestrator.core.monitoring.catalogue import MAX_NODES
from orchestrator.core.monitoring.metric import Sample
from orchestrator.core.monitoring.run_metrics import RUNS, STATES
from orchestrator.core.monitoring.run_samples import RunView, node_samples, run_samples
from orchestrator.core.monitoring.scaling_samples import engine_samples, scaling_samples


class Monitor:
    """May be asked from several threads; it answers one after the other."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._renderer = Renderer()
        self._runs = ShownRuns(layout)
        self._outputs = OutputSamples(layout)
        self._history = HistorySamples(layout)
        self._schedules = ScheduleSamples(layout)

    def render(self, now: float, accept: str = "") -> Exposition:
        """The answer to a scrape at ``now`` (seconds since the epoch). What cannot be read is left
        out and counted. Raises :class:`UsageError` where prometheus-client is not installed.
        """
        with self._lock, _paused_collector():
            return self._renderer.render(self._collect(now), accept)

    def collect(self, now: float) -> list[Sample]:
        """Every sample at ``now``."""
        with self._lock:
            return list(self._collect(now))

    def _collect(self, now: float) -> Iterator[Sample]:
        began = time.perf_counter()
        yield kept.BUILD.sample(1, __version__)
        yield from space_samples(self._layout)
        yield from self._schedules.read(now)
        runs = self._runs.look(now)
        for run in runs:
            yield from run_samples(run)
            yield from engine_samples(run) if run.is_live else ()
        yield from scaling_samples(runs)
        yield from _node_samples(runs)
        yield from self._outputs.read(runs)
        counts, unreadable = Counter(self._runs.live_states), self._runs.unreadable
        try:
            finished, samples = self._history.read()
            counts.update({status.value: count for status, count in finished.items()})
            yield from samples
        except (OSError, OrchestrateError):
            unreadable += 1
        for state in STATES:
            yield RUNS.sample(counts[state], state)
        yield kept.UNREADABLE.sample(unreadable + self._schedules.unreadable)
        yield kept.COLLECT_SECONDS.sample(time.perf_counter() - began)


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Tens of thousands of samples are made, none of them in a circle: to look for circles among
    them takes a quarter of a scrape's time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _node_samples(runs: list[RunView]) -> Iterator[Sample]:
    """Nodes of live runs first, of the latest ones among them; at most ``MAX_NODES`` in all."""
    left = MAX_NODES
    for run in sorted(runs, key=lambda run: (not run.is_live, -(run.started or 0.0))):
        left -= len(run.tally.nodes)
        if left >= 0:
            yield from node_samples(run)
