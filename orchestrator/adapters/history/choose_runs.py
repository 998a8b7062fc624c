"""Runs as people name them for a comparison: an id, a baseline, or the last N like the other."""

from __future__ import annotations

import re

from orchestrator.adapters.history.baselines import load_baselines
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean, did_you_mean_run
from orchestrator.core.history.comparing import RunGroup
from orchestrator.core.history.run_record import RunQuery, RunRecord, key_differences
from orchestrator.core.verdict.result import Status

MAX_LAST = 200
_LAST_N = re.compile(r"last:([0-9]{1,6})")
_BASELINE = "baseline:"
NOISE_RUNS = 50  # of the same key: what a cluster did months ago says little of today's noise


def choose_pair(store: HistoryStore, a: str, b: str) -> tuple[RunGroup, RunGroup]:
    """Both sides of a comparison; one of them may be ``last:N``. Raises ``UsageError``."""
    if _LAST_N.fullmatch(a) and _LAST_N.fullmatch(b):
        raise UsageError(
            "last:N means runs like the other side's, and both sides are last:N",
            id="usage.compare",
            remedy="name a run or a baseline on one side",
        )
    if _LAST_N.fullmatch(a):
        other = choose_group(store, b)
        return _last_like(store, a, other), other
    other = choose_group(store, a)
    if _LAST_N.fullmatch(b):
        return other, _last_like(store, b, other)
    return other, choose_group(store, b)


def choose_group(store: HistoryStore, text: str) -> RunGroup:
    """A run or a baseline; a baseline wins. Raises :class:`UsageError`."""
    baselines = load_baselines(store)
    name = text.removeprefix(_BASELINE)
    if name in baselines:
        return RunGroup(text, baselines[name].runs)
    if text.startswith(_BASELINE):
        raise UsageError(
            f"no baseline is called {name!r}",
            id="OR-STORE-016",
            where=store.where,
            remedy=did_you_mean(name, baselines),
        )
    return RunGroup(text, (choose_run(store, text, known=tuple(baselines)),))


def choose_run(store: HistoryStore, text: str, known: tuple[str, ...] = ()) -> RunRecord:
    """The run that ``text`` names: an id, a unique beginning of one, or ``last``."""
    found = store.read_runs(RunQuery(limit=1)) if text == "last" else store.find_runs(text)
    if len(found) == 1:
        return found[0]
    if found:
        what, remedy = f"several runs begin with {text!r}", f"such as {found[0].run_id}"
    else:
        recent = [run.run_id for run in store.read_runs(RunQuery(limit=100))]
        what = f"the history has no run {text!r}"
        near = did_you_mean_run(text, [*recent, *known]) if recent or known else ""
        lists = "all: orchestrate history" if recent else ""
        reads = "orchestrate history import reads run folders"
        remedy = "; ".join(filter(None, [near, lists, reads]))
    raise UsageError(what, id="OR-STORE-003", where=store.where, remedy=remedy)


def runs_for_noise(store: HistoryStore, a: RunGroup, b: RunGroup) -> tuple[RunRecord, ...]:
    """The latest runs of the key of ``a`` that succeeded, without those that are judged."""
    judged = {run.run_id for run in b.runs}
    like = RunQuery(key_digest=a.runs[0].key.digest, limit=NOISE_RUNS + len(judged))
    runs = store.read_runs(like)
    return tuple(r for r in runs if r.status is Status.SUCCEEDED and r.run_id not in judged)


def _last_like(store: HistoryStore, text: str, other: RunGroup) -> RunGroup:
    match = _LAST_N.fullmatch(text)
    assert match is not None
    count = int(match[1])
    if not 1 <= count <= MAX_LAST:
        raise UsageError(f"{text}: from 1 to {MAX_LAST} runs", id="usage.compare")
    first = min(other.runs, key=lambda run: run.finished)
    like = RunQuery(key_digest=first.key.digest, before=first.finished, limit=2 * MAX_LAST)
    runs = [run for run in store.read_runs(like) if run.status is Status.SUCCEEDED]
    if not runs:
        raise UsageError(
            f"no run that succeeded before {first.run_id} has its key",
            id="OR-STORE-017",
            where=store.where,
            why=_difference_before(store, first),
            remedy=f"name a run: orchestrate history --workload {first.workload}",
        )
    return RunGroup(text, tuple(runs[:count]))


def _difference_before(store: HistoryStore, run: RunRecord) -> str:
    """In what the latest run of the same work before ``run`` differs from it."""
    same = RunQuery(workload=run.workload, before=run.finished, limit=MAX_LAST)
    before = [r for r in store.read_runs(same) if r.status is Status.SUCCEEDED]
    if not before:
        return ""
    latest = max(before, key=lambda each: each.finished)
    differences = key_differences(latest.key, run.key)
    return f"{latest.run_id} and {run.run_id} differ in {', '.join(map(str, differences))}"
