"""The history as files that other tools read: JSON lines, CSV, Parquet. In bounded memory."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.history.stored_run import record_to_mapping
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.run_record import KEY_PARTS, RunRecord

_RUN_FIELDS = tuple("run_id started finished cluster workload preset status code commit".split())
_FIGURE_FIELDS = ("metric", "value", "unit", "direction")
COLUMNS = (*_RUN_FIELDS, *(f"key_{part}" for part in KEY_PARTS), *_FIGURE_FIELDS)
_NUMBERS = frozenset({"started", "finished", "value"})
_BATCH_ROWS = 50_000


def export_runs(runs: Iterable[RunRecord], format: str, out: Path | None) -> int:
    """Write ``runs`` as ``csv``, ``jsonl`` or ``parquet`` to ``out`` or stdout; returns how many.

    Raises :class:`UsageError` for Parquet without pyarrow, or to a terminal.
    """
    counted = _Counted(runs)
    _WRITERS[format](counted, out)
    return counted.count


class _Counted:
    """Passes runs on and counts them."""

    def __init__(self, runs: Iterable[RunRecord]) -> None:
        self._runs = runs
        self.count = 0

    def __iter__(self) -> Iterator[RunRecord]:
        for run in self._runs:
            self.count += 1
            yield run


def _write_jsonl(runs: Iterable[RunRecord], out: Path | None) -> None:
    with _text_file(out) as file:
        for run in runs:
            file.write(json.dumps(record_to_mapping(run), allow_nan=False) + "\n")


def _write_csv(runs: Iterable[RunRecord], out: Path | None) -> None:
    with _text_file(out) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in _rows(runs):
            writer.writerow(row)


def _write_parquet(runs: Iterable[RunRecord], out: Path | None) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed",
            id="history.parquet",
            remedy=f"{install_command('parquet')}, or --format csv",
        ) from error
    if out is None and sys.stdout.isatty():
        what = "Parquet is binary; stdout is a terminal"
        raise UsageError(what, id="history.parquet", remedy="--out FILE")
    schema = pa.schema(
        [(name, pa.float64() if name in _NUMBERS else pa.string()) for name in COLUMNS]
    )
    rows = _rows(runs)
    with _binary_file(out) as file, pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


_WRITERS: dict[str, Callable[[Iterable[RunRecord], Path | None], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


def _rows(runs: Iterable[RunRecord]) -> Iterator[dict[str, Any]]:
    """A row a figure; a run without figures has one row without a metric."""
    for run in runs:
        shared = {name: getattr(run, name) for name in _RUN_FIELDS}
        shared["status"] = run.status.value
        shared |= {f"key_{part}": value for part, value in run.key.as_mapping().items()}
        if not run.figures:
            yield {**shared, **dict.fromkeys(_FIGURE_FIELDS)}
        for name, figure in run.figures.items():
            yield {
                **shared,
                "metric": name,
                "value": figure.value,
                "unit": figure.unit,
                "direction": figure.direction.value,
            }


@contextmanager
def _text_file(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    with _replacing(out) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def _binary_file(out: Path | None) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        return
    with _replacing(out) as partial, partial.open("wb") as file:
        yield file


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file beside ``out`` that takes its place when all is written."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        yield partial
        partial.replace(out)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("cannot be written", id="history.export", where=out, why=why) from error
    finally:
        partial.unlink(missing_ok=True)
