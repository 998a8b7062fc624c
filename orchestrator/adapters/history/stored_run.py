"""Records of runs as rows of tables, and back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.adapters.report.result_json import parse_object, to_object
from orchestrator.core.history.run_record import (
    KEY_PARTS,
    ComparisonKey,
    Curve,
    RunFigure,
    RunRecord,
)
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Result, Status

MAX_DOCUMENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A finished run with all that is kept of it. ``curves``: figures over steps, by name."""

    record: RunRecord
    result: Result
    curves: Mapping[str, Curve] = field(default_factory=dict)


def figures_of(result: Result) -> dict[str, RunFigure]:
    """The result's metrics; one that is not finite has no value."""
    found = {}
    for name, metric in result.metrics.items():
        figure = RunFigure(value=metric.value, unit=metric.unit, direction=metric.direction)
        found[name] = figure if figure.measured else replace(figure, value=None)
    return found


def key_to_json(key: ComparisonKey) -> str:
    """Sorted, so that equal keys are equal texts."""
    return json.dumps(key.as_mapping(), sort_keys=True)


def key_from_mapping(data: Mapping[str, Any]) -> ComparisonKey:
    """Parts that this version does not know are dropped, those that are missing are unknown."""
    return ComparisonKey(**{part: str(data.get(part, "")) for part in KEY_PARTS})


def pack_document(data: object) -> bytes:
    """Compressed JSON."""
    return zlib.compress(json.dumps(data, allow_nan=False, separators=(",", ":")).encode(), 6)


def unpack_document(content: bytes) -> Any:
    """The inverse. Raises ``ValueError`` for what is damaged or out of all proportion."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(bytes(content), MAX_DOCUMENT_BYTES)
    except zlib.error as error:
        raise ValueError(f"not a compressed document: {error}") from error
    if unpacker.unconsumed_tail:
        raise ValueError("a document of more than 64 MiB")
    return json.loads(text)


def parse_document(content: bytes, *, where: str) -> Any:
    """Raises ``ValueError`` that names the place."""
    try:
        return unpack_document(content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def result_document(result: Result) -> bytes:
    """The result as ``parse_result`` reads it."""
    return pack_document(to_object(result))


def parse_result(content: bytes, *, where: str) -> Result:
    """Raises ``OrchestrateError``, ``ValueError``."""
    return parse_object(unpack_document(content), where=where)


def record_from_row(row: tuple[Any, ...], figures: Mapping[str, RunFigure]) -> RunRecord:
    """``row`` has the columns of ``RUN_COLUMNS`` behind its number."""
    run_id, started, finished, cluster, workload, preset, status, code, commit, key = row
    return RunRecord(
        run_id=run_id,
        started=started,
        finished=finished,
        cluster=cluster,
        workload=workload,
        preset=preset,
        status=Status(status),
        code=code,
        commit=commit,
        key=key_from_mapping(json.loads(key)),
        figures=figures,
    )


RUN_COLUMNS = (
    "run.run_id, run.started, run.finished, run.cluster, run.workload, run.preset, run.status,"
    " run.code, run.commit_id, comparison_key.content"
)


def figures_from_rows(
    rows: Iterable[tuple[Any, ...]],
) -> dict[int, dict[str, RunFigure]]:
    """(run number, name, unit, direction, value) -> the figures of each run."""
    found: dict[int, dict[str, RunFigure]] = {}
    for number, name, unit, direction, value in rows:
        figure = RunFigure(value=value, unit=unit, direction=Direction(direction))
        found.setdefault(number, {})[name] = figure
    return found


def record_to_mapping(record: RunRecord) -> dict[str, Any]:
    """JSON-ready: how baselines and exports write a run."""
    return {
        "run_id": record.run_id,
        "started": record.started,
        "finished": record.finished,
        "cluster": record.cluster,
        "workload": record.workload,
        "status": record.status.value,
        "preset": record.preset,
        "code": record.code,
        "commit": record.commit,
        "key": record.key.as_mapping(),
        "figures": {
            name: {
                "value": figure.value,
                "unit": figure.unit,
                "direction": figure.direction.value,
            }
            for name, figure in record.figures.items()
        },
    }


def record_from_mapping(data: Mapping[str, Any]) -> RunRecord:
    """The inverse, of what this program stored. Raises ``KeyError``, ``ValueError``."""
    return RunRecord(
        **{
            **data,
            "status": Status(data["status"]),
            "key": key_from_mapping(data["key"]),
            "figures": {
                name: RunFigure(
                    value=item["value"], unit=item["unit"], direction=Direction(item["direction"])
                )
                for name, item in data["figures"].items()
            },
        }
    )
