"""Retention: which runs may be forgotten. Baselines, and the runs that they name, never are."""

from __future__ import annotations

from collections import Counter

from orchestrator.adapters.history.baselines import load_baselines
from orchestrator.adapters.history.store import HistoryStore


def runs_to_forget(store: HistoryStore, *, before: float, keep: int) -> list[str]:
    """Ids of runs that finished before the time (seconds since the epoch), except the latest
    ``keep`` of each key and those that a baseline names; newest first.
    """
    named = {run.run_id for base in load_baselines(store).values() for run in base.runs}
    seen: Counter[str] = Counter()
    doomed = []
    for run in store.outline_runs():
        seen[run.key_digest] += 1
        kept = seen[run.key_digest] <= keep or run.run_id in named
        if run.finished < before and not kept:
            doomed.append(run.run_id)
    return doomed
