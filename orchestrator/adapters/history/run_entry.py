"""A finished run's folder as an entry of the history."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TypeVar

from orchestrator.adapters.history.stored_run import HistoryEntry, figures_of
from orchestrator.adapters.report.drawing.charts import MAX_CHARTS, thin_curve
from orchestrator.adapters.store.journal import JournalReader
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import read_series
from orchestrator.core.base.codec import CodecError, from_json
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.base.wire_names import wire_name
from orchestrator.core.history.derive_key import derive_key
from orchestrator.core.history.run_record import Curve, RunRecord
from orchestrator.core.model.checks import PYTHON
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.events import Prepared, Probed
from orchestrator.core.verdict.result import Result

T = TypeVar("T")

_EVENTS = {wire_name(event): event for event in (Probed, Prepared)}


def describe_run(
    folder: RunFolder, request: RunRequest, result: Result, *, started: float, finished: float
) -> HistoryEntry:
    """Times in seconds since the epoch. What the folder does not tell stays unknown in the key."""
    facts, modules = read_findings(folder.journal)
    record = RunRecord(
        run_id=result.run_id,
        started=started,
        finished=finished,
        cluster=result.cluster,
        workload=result.workload,
        preset=request.job.preset,
        status=result.status,
        code=request.code,
        commit=request.commit,
        key=derive_key(request, result, facts, modules),
        figures=figures_of(result),
    )
    return HistoryEntry(record=record, result=result, curves=_read_curves(folder.metrics))


def read_findings(journal: Path) -> tuple[dict[str, Facts], dict[str, Mapping[str, str]]]:
    """Facts and versions of modules by node, of the last attempt that found them; without the
    interpreter's own version, which earlier records do not have.
    """
    facts: dict[str, Facts] = {}
    modules: dict[str, Mapping[str, str]] = {}
    for event in _read_events(journal):
        if isinstance(event, Probed):
            facts[event.node] = event.facts
        else:
            modules[event.node] = {k: v for k, v in event.modules.items() if k != PYTHON}
    return facts, modules


def read_interpreters(journal: Path) -> frozenset[str]:
    """Paths of the interpreters that ranks ran under, on any node."""
    events = _read_events(journal)
    return frozenset(event.interpreter for event in events if isinstance(event, Prepared))


def _read_events(journal: Path) -> Iterator[Probed | Prepared]:
    """Those that tell of nodes; from a damaged journal what was read before the damage."""
    with suppress(OrchestrateError):
        for entry in JournalReader(journal).read_all():
            kind = _EVENTS.get(entry.event.get("type"))
            if kind is None:
                continue
            with suppress(CodecError):
                event = from_json(kind, entry.event)
                assert isinstance(event, Probed | Prepared)
                yield event


def _read_curves(path: Path) -> dict[str, Curve]:
    """Each figure over steps: the median of all ranks, thinned; of many figures the first ones."""
    found: dict[str, dict[int, list[float]]] = {}
    for series in read_series(path):
        steps = found.setdefault(series.name, {})
        for step, value in series.points:
            steps.setdefault(step, []).append(value)
    curves = {
        name: thin_curve(tuple((step, median(values)) for step, values in sorted(steps.items())))
        for name, steps in found.items()
        if len(steps) > 1
    }
    return dict(list(curves.items())[:MAX_CHARTS])


def read_request(folder: RunFolder) -> RunRequest | None:
    """What the run was asked to do; None where that cannot be read."""
    return _read_record(folder.request, RunRequest)


def read_plan(folder: RunFolder) -> Plan | None:
    """Where its ranks were to run; None where that cannot be read."""
    return _read_record(folder.plan, Plan)


def read_settings(folder: RunFolder) -> dict[str, str]:
    """The values of the workload's parameters as text; none where the folder is gone."""
    request = read_request(folder)
    return {} if request is None else {name: str(v) for name, v in request.job.values.items()}


def _read_record(path: Path, kind: type[T]) -> T | None:
    try:
        record = from_json(kind, json.loads(path.read_bytes()))
    except (OSError, ValueError, CodecError):
        return None
    assert isinstance(record, kind)
    return record
