"""One run's folder, followed: journal and series from where the last look ended, progress anew.

Everything is bounded: a look reads at most so much of each file, and the next one reads on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, get_args

from orchestrator.adapters.store.journal import Entry, JournalReader
from orchestrator.adapters.store.latest_progress import RankProgress, read_live_state
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import Point, PointReader
from orchestrator.adapters.store.run_list import read_names
from orchestrator.core.base.codec import CodecError, from_json
from orchestrator.core.base.wire_names import wire_name
from orchestrator.core.monitoring.catalogue import MAX_FIGURES
from orchestrator.core.monitoring.run_samples import RunView
from orchestrator.core.monitoring.run_tally import Counted, RunTally
from orchestrator.core.monitoring.scaling_samples import ENGINE_FIGURES
from orchestrator.core.verdict.result import Result

T = TypeVar("T")

STEP_POINTS = 32  # of the series that the time of a step is taken from
MAX_PORTIONS = 64  # of a file in one look
TOKEN_FIELDS = ("tokens_per_s", "output_tokens_per_s")
LEASED_FIELD = "leased"
_EVENTS = {wire_name(kind): kind for kind in get_args(Counted)}


class RunReader:
    """Call :meth:`look` at each scrape."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.tally = RunTally()
        self._journal = JournalReader(folder.journal)
        self._points = PointReader(folder.metrics)
        self._last_event: float | None = None
        self._figures: dict[str, Point] = {}
        self._engines: dict[str, dict[str, float]] = {}
        self._steps: deque[tuple[int, float]] = deque(maxlen=STEP_POINTS)
        self._names = read_names(folder)

    def look(self, state: str, started: float | None, result: Result | None) -> RunView:
        """The run as it is now; ``state`` and ``started`` as listings show them. Raises
        ``OrchestrateError`` for a damaged journal, ``OSError``.
        """
        for entry in _portions(self._journal.read_each):
            self._take_entry(entry)
        for point in _portions(self._points.read):
            self._take_point(point)
        ranks, telemetry = read_live_state(self.folder.progress)
        heard = [p.at for p in ranks] + [point.t for point in self._figures.values()]
        reported = max(heard, default=None)
        if not any(self._names):  # it was seen before its request was written
            self._names = read_names(self.folder)
        named = self._names if result is None else result
        return RunView(
            run_id=self.folder.run_id,
            state=state,
            tally=self.tally,
            cluster=named.cluster,
            workload=named.workload,
            launcher=named.launcher,
            mode=self._mode(result),
            started=started,
            last_event=_latest(self._last_event, reported),
            last_progress=reported,
            progress=self._progress(ranks),
            step_s=self._step_seconds(),
            leased=_number_field(ranks, LEASED_FIELD),
            nvlink_bytes=_captured(result, "nvlink", "sent_bytes"),
            tokens=_tokens(ranks),
            figures={name: (point.value, point.unit) for name, point in self._figures.items()},
            engines=self._engines,
            telemetry={read.node: read for read in telemetry},
        )

    def _take_entry(self, entry: Entry) -> None:
        self._last_event = entry.t
        kind = _EVENTS.get(entry.event.get("type"))
        if kind is None:
            return
        try:
            self.tally.add(from_json(kind, entry.event))
        except CodecError:  # an event of another version: what is known of it is not counted
            return

    def _take_point(self, point: Point) -> None:
        """The newest value of each series of the lowest rank."""
        if point.step is None or not math.isfinite(point.value):
            return
        if point.name in ENGINE_FIGURES:
            self._engines.setdefault(point.node, {})[point.name] = point.value
            return
        known = self._figures.get(point.name)
        if known is None and len(self._figures) >= MAX_FIGURES:
            return
        if known is None or point.rank <= known.rank:
            self._figures[point.name] = point
            if point.name == next(iter(self._figures)):
                self._steps.append((point.step, point.t))

    def _step_seconds(self) -> float | None:
        """Over the last points of the first series; None where they do not ascend."""
        if len(self._steps) < 2:
            return None
        (first, began), (last, ended) = self._steps[0], self._steps[-1]
        return (ended - began) / (last - first) if last > first and ended >= began else None

    def _progress(self, ranks: tuple[RankProgress, ...]) -> float | None:
        """Of divided work what is settled; else the rank that is furthest behind, on nodes that are
        well.
        """
        divided = self.tally.divided
        if divided is not None and divided.total:
            return divided.settled / divided.total
        broken = set(self.tally.broken_nodes())
        return min((p.ratio for p in ranks if p.node not in broken), default=None)

    def _mode(self, result: Result | None) -> str:
        """How ranks communicate: as the result says, or as the last probe proved."""
        used = next((r.rung for r in result.ladder if r.outcome == "used"), "") if result else ""
        if used or self.tally.fabric is None:
            return used
        return self.tally.fabric.rung.value


def _portions(read: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What ``read`` gives until it gives nothing more."""
    for _ in range(MAX_PORTIONS):
        last: T | None = None
        for last in read():
            yield last
        if last is None:
            return


def _latest(*times: float | None) -> float | None:
    return max((time for time in times if time is not None), default=None)


def _number_field(ranks: tuple[RankProgress, ...], name: str) -> float | None:
    """The sum of a field over ranks; None where none reports it."""
    found = [value for p in ranks if isinstance(value := p.fields.get(name), int | float)]
    return sum(found) if found else None


def _captured(result: Result | None, kind: str, figure: str) -> float | None:
    """A figure of a run's captures; None where there is none."""
    captures = result.captures if result is not None else ()
    return next((c.figures.get(figure) for c in captures if c.kind == kind), None)


def _tokens(ranks: tuple[RankProgress, ...]) -> dict[str, float]:
    """Tokens per second by node."""
    found: dict[str, float] = {}
    for progress in ranks:
        for name in TOKEN_FIELDS:
            value = progress.fields.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found[progress.node] = found.get(progress.node, 0.0) + value
                break
    return found
