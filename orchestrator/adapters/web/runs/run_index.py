"""All runs of a home, newest first: kept in memory, and read again where files changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.store import RunLine
from orchestrator.adapters.store.layout import Layout, valid_run_id
from orchestrator.adapters.store.run_list import RunSummary, summarise
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.verdict.result import Status

MAX_RUNS = 100_000
PAGE_RUNS = 50
FRESH_S = 2.0  # a list so old is still shown
WHOLE_S = 30.0  # so often everything is read, whatever the files' times say
SHARE = 10  # of the time between two readings, reading takes at most one part in so many
SETTLED_S = 60.0  # what is written of a run after the history knows it is written within this
OVER = frozenset(status.value for status in Status)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a list shows; empty = all."""

    state: str = ""
    cluster: str = ""
    workload: str = ""
    text: str = ""

    def matches(self, run: RunSummary) -> bool:
        """Whether ``run`` is shown. ``text`` is found in its id, cluster or workload."""
        exact = (
            (self.state, run.state),
            (self.cluster, run.cluster),
            (self.workload, run.workload),
        )
        wanted = self.text.casefold()
        named = f"{run.run_id} {run.cluster} {run.workload}".casefold()
        return wanted in named and all(not asked or asked == has for asked, has in exact)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsPage:
    """One page of a list; ``number`` counts from 1."""

    runs: tuple[RunSummary, ...]
    number: int
    pages: int
    total: int


class RunIndex:
    """``refresh`` reads, in a thread; everything else answers from memory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._runs: tuple[RunSummary, ...] = ()
        self._settled: dict[str, tuple[float, RunSummary]] = {}
        self._stamp: object = None
        self._read_at = self._next = -1e9
        self.version = 0
        self.trouble = ""

    @property
    def runs(self) -> tuple[RunSummary, ...]:
        """Newest first."""
        return self._runs

    @property
    def live(self) -> tuple[RunSummary, ...]:
        """Those that have not ended."""
        return tuple(run for run in self._runs if run.state not in OVER)

    def choices(self, field: str) -> list[str]:
        """The values of a field, for filters."""
        return sorted({value for run in self._runs if (value := getattr(run, field))})

    def page(self, chosen: RunFilter, number: int) -> RunsPage:
        """One page of the runs that ``chosen`` matches; a number beyond the last is the last."""
        found = [run for run in self._runs if chosen.matches(run)]
        pages = max(1, -(-len(found) // PAGE_RUNS))
        number = min(max(number, 1), pages)
        shown = found[(number - 1) * PAGE_RUNS : number * PAGE_RUNS]
        return RunsPage(runs=tuple(shown), number=number, pages=pages, total=len(found))

    def is_stale(self) -> bool:
        """Whether it is time to read again."""
        return time.monotonic() >= self._next

    def refresh(self) -> bool:
        """Read what changed; True when the list did. Files that cannot be read become a trouble."""
        began = time.monotonic()
        stamp = self._read_stamp()
        runs = self._runs
        if stamp != self._stamp or began - self._read_at > WHOLE_S:
            runs = self._read_all()
            self._stamp, self._read_at = stamp, began
        elif self.live:
            runs = tuple(self._again(run) for run in runs)
        self._next = time.monotonic() + max(FRESH_S, SHARE * (time.monotonic() - began))
        changed = runs != self._runs
        self._runs = runs
        self.version += changed
        return changed

    def _read_stamp(self) -> object:
        """Something that differs when a run was added, removed or remembered."""
        home = self._layout
        files = [home.runs, home.history, home.history.with_name(home.history.name + "-wal")]
        return tuple(
            (stat.st_mtime_ns, stat.st_size) if (stat := _stat(f)) else None for f in files
        )

    def _read_all(self) -> tuple[RunSummary, ...]:
        remembered = self._remembered()
        try:
            return tuple(sorted(self._merge(remembered), key=_newest_first))
        except OSError as error:
            self.trouble = f"runs not read: {error}"
            return self._runs

    def _merge(self, remembered: Mapping[str, RunLine]) -> Iterator[RunSummary]:
        present = set()
        for run_id, changed in self._folders():
            present.add(run_id)
            yield self._of_folder(run_id, changed, remembered.get(run_id))
        for run_id, line in remembered.items():
            if run_id not in present:
                yield _of_line(line, cleaned=True)
        self._settled = {run: kept for run, kept in self._settled.items() if run in present}

    def _remembered(self) -> Mapping[str, RunLine]:
        try:
            lines = open_history(self._layout).list_runs(MAX_RUNS)
        except (OSError, OrchestrateError) as error:
            self.trouble = f"history not read: {error}"
            return {}
        self.trouble = ""
        return {line.run_id: line for line in lines}

    def _folders(self) -> Iterator[tuple[str, float]]:
        """(run, when its folder changed)"""
        if not self._layout.runs.is_dir():
            return
        with os.scandir(self._layout.runs) as entries:
            for entry in entries:
                if valid_run_id(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_mtime

    def _of_folder(self, run_id: str, changed: float, line: RunLine | None) -> RunSummary:
        """From the history if it knows the run's end; that of a resumed one lies before it."""
        if line is not None and changed <= line.finished + SETTLED_S:
            return _of_line(line, cleaned=False)
        kept = self._settled.get(run_id)
        if kept is not None and kept[0] == changed:
            return kept[1]
        run = self._summarise(run_id)
        if run.state in OVER:
            self._settled[run_id] = (changed, run)
        return run

    def _again(self, run: RunSummary) -> RunSummary:
        return run if run.state in OVER else self._summarise(run.run_id)

    def _summarise(self, run_id: str) -> RunSummary:
        folder = self._layout.run(run_id)
        try:
            found = summarise(folder)
        except (OSError, ValueError, OrchestrateError):
            found = RunSummary(run_id=run_id, state="unreadable")
        stat = _stat(folder.path)
        started = found.started if found.started is not None or stat is None else stat.st_mtime
        return replace(found, started=started)


def _of_line(line: RunLine, *, cleaned: bool) -> RunSummary:
    return RunSummary(
        run_id=line.run_id,
        state=line.status,
        cluster=line.cluster,
        workload=line.workload,
        started=line.started,
        seconds=max(0.0, line.finished - line.started),
        cleaned=cleaned,
    )


def _newest_first(run: RunSummary) -> tuple[float, str]:
    return (-(run.started or 0.0), run.run_id)


def _stat(path: os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - any kind of path
    except OSError:
        return None
