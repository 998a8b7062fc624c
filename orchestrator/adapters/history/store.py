"""The history: every finished run with its figures, under the key that says which are alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.adapters.history.database import HistoryDatabase, Session, Values
from orchestrator.adapters.history.stored_run import (
    RUN_COLUMNS,
    HistoryEntry,
    figures_from_rows,
    figures_of,
    key_to_json,
    pack_document,
    parse_document,
    parse_result,
    record_from_row,
    result_document,
)
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.history.run_record import (
    ComparisonKey,
    Curve,
    FigureSeries,
    RunFigure,
    RunQuery,
    RunRecord,
    SeriesPoint,
)
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Result, Status

_FROM = " FROM run JOIN comparison_key ON comparison_key.number = run.key_number"
_BATCH = 200  # runs whose figures are read at once
# (run_id, finished, value, status, code, commit, unit, direction), newest first.
_SERIES_ROWS = """
SELECT run.run_id, run.finished, figure.value, run.status, run.code, run.commit_id,
 metric.unit, metric.direction FROM (SELECT run.* FROM run JOIN comparison_key
 ON comparison_key.number = run.key_number WHERE comparison_key.digest = :digest
 ORDER BY run.finished DESC, run.number DESC LIMIT :limit) AS run
 LEFT JOIN figure ON figure.run_number = run.number AND figure.metric_number IN
 (SELECT number FROM metric WHERE name = :metric)
 LEFT JOIN metric ON metric.number = figure.metric_number
 ORDER BY run.finished DESC, run.number DESC
"""


class RunOutline(NamedTuple):
    """What retention looks at; ``finished`` in seconds since the epoch."""

    run_id: str
    finished: float
    key_digest: str


class RunLine(NamedTuple):
    """What a list of many runs shows; times in seconds since the epoch."""

    run_id: str
    started: float
    finished: float
    cluster: str
    workload: str
    status: str


class HistoryStore:
    """See ``HistoryReader`` for what reads. Each call is one transaction."""

    def __init__(self, database: HistoryDatabase) -> None:
        self._database = database

    @property
    def where(self) -> str:
        """Names the store for people, without secrets."""
        return self._database.where

    # ---- writing ---------------------------------------------------------------------------------

    def record_run(self, entry: HistoryEntry) -> None:
        """Add the run, or replace what is known of it. Durable on return."""
        with self._database.writing() as session:
            insert_entry(session, entry)

    def remove_runs(self, run_ids: Sequence[str]) -> None:
        """Forget these runs; what does not exist is not missed."""
        with self._database.writing() as session:
            session.write_rows(
                "DELETE FROM run WHERE run_id = :run", [{"run": run} for run in run_ids]
            )

    # ---- runs ------------------------------------------------------------------------------------

    def read_runs(self, query: RunQuery) -> tuple[RunRecord, ...]:
        """Matching runs with their figures, newest first."""
        return tuple(self.iterate_runs(query))

    def iterate_runs(self, query: RunQuery) -> Iterator[RunRecord]:
        """The same, in bounded memory however many there are."""
        if not self._database.exists():
            return
        with self._database.reading() as session:
            condition, values = _condition(query)
            order = " ORDER BY run.finished DESC, run.number DESC LIMIT :limit"
            rows = session.fetch_rows(
                f"SELECT run.number{_FROM}{condition}{order}", {**values, "limit": query.limit}
            )
            numbers = [number for (number,) in rows]
            for start in range(0, len(numbers), _BATCH):
                yield from _records(session, numbers[start : start + _BATCH])

    def outline_runs(self) -> list[RunOutline]:
        """All runs without their figures, newest first."""
        columns = "SELECT run.run_id, run.finished, comparison_key.digest"
        order = " ORDER BY run.finished DESC, run.number DESC"
        return [RunOutline(*row) for row in self._fetch_rows(columns + _FROM + order)]

    def count_statuses(self) -> dict[Status, int]:
        """How many runs ended how."""
        rows = self._fetch_rows("SELECT status, COUNT(*) FROM run GROUP BY status")
        return {Status(status): int(count) for status, count in rows}

    def latest_runs(self, limit: int) -> list[RunRecord]:
        """The last run of each workload on each cluster, newest first; of many pairs the latest
        ``limit``.
        """
        if not self._database.exists():
            return []
        with self._database.reading() as session:
            rows = session.fetch_rows(
                "SELECT MAX(run.number) FROM run JOIN (SELECT cluster, workload, MAX(finished)"
                " AS finished FROM run GROUP BY cluster, workload) AS latest"
                " ON latest.cluster = run.cluster AND latest.workload = run.workload"
                " AND latest.finished = run.finished GROUP BY run.cluster, run.workload"
                " ORDER BY MAX(run.finished) DESC LIMIT :limit",
                {"limit": limit},
            )
            return _records(session, [number for (number,) in rows])

    def list_runs(self, limit: int) -> list[RunLine]:
        """The latest runs, newest first, without what takes long to read."""
        columns = "SELECT run_id, started, finished, cluster, workload, status FROM run"
        order = " ORDER BY finished DESC, number DESC LIMIT :limit"
        return [RunLine(*row) for row in self._fetch_rows(columns + order, {"limit": limit})]

    def find_runs(self, beginning: str, limit: int = 2) -> tuple[RunRecord, ...]:
        """The run whose id is ``beginning``, else those whose ids begin with it, newest first."""
        if not self._database.exists():
            return ()
        with self._database.reading() as session:
            rows = session.fetch_rows(
                "SELECT number, run_id FROM run WHERE substr(run_id, 1, :length) = :beginning"
                " ORDER BY run_id = :beginning DESC, finished DESC LIMIT :limit",
                {"length": len(beginning), "beginning": beginning, "limit": limit},
            )
            exact = [number for number, run_id in rows if run_id == beginning]
            return tuple(_records(session, exact or [number for number, _ in rows]))

    def read_result(self, run_id: str) -> Result | None:
        """The whole result of a run; None for one that is not known."""
        document = self._read_document(run_id, "result")
        return None if document is None else _parsed(parse_result, document, self.where)

    def read_curves(self, run_id: str) -> dict[str, Curve]:
        """The run's figures over steps, by name."""
        document = self._read_document(run_id, "curves")
        if document is None:
            return {}
        curves = _parsed(parse_document, document, self.where)
        return {
            name: tuple((step, value) for step, value in points) for name, points in curves.items()
        }

    def _read_document(self, run_id: str, column: str) -> bytes | None:
        rows = self._fetch_rows(
            f"SELECT {column} FROM run_document JOIN run ON run.number = run_number"
            " WHERE run_id = :run",
            {"run": run_id},
        )
        return rows[0][0] if rows else None

    # ---- series ----------------------------------------------------------------------------------

    def read_series(self, key: ComparisonKey, metric: str, limit: int) -> FigureSeries:
        """The latest ``limit`` runs with this key, oldest first. Without runs it has no points."""
        values = {"digest": key.digest, "metric": metric, "limit": limit}
        rows = self._fetch_rows(_SERIES_ROWS, values)[::-1]
        known = next((row for row in reversed(rows) if row[6] is not None), None)
        return FigureSeries(
            key=key,
            metric=metric,
            unit=known[6] if known else "",
            direction=Direction(known[7]) if known else Direction.INFO,
            points=tuple(
                SeriesPoint(
                    run_id=run_id,
                    finished=finished,
                    value=value,
                    status=Status(status),
                    code=code,
                    commit=commit,
                )
                for run_id, finished, value, status, code, commit, *_ in rows
            ),
        )

    # ---- baselines -------------------------------------------------------------------------------

    def write_baseline(self, name: str, set_at: float, content: Mapping[str, Any]) -> None:
        """Set ``name``, replacing what it was."""
        with self._database.writing() as session:
            session.write_rows(
                "INSERT INTO baseline (name, set_at, content) VALUES (:name, :at, :content)"
                " ON CONFLICT (name) DO UPDATE SET set_at = excluded.set_at,"
                " content = excluded.content",
                [{"name": name, "at": set_at, "content": json.dumps(content, allow_nan=False)}],
            )

    def delete_baseline(self, name: str) -> None:
        """Forget ``name``; what does not exist is not missed."""
        with self._database.writing() as session:
            session.write_rows("DELETE FROM baseline WHERE name = :name", [{"name": name}])

    def read_baselines(self) -> dict[str, Any]:
        """Name -> content, sorted by name; text where it is damaged."""
        rows = self._fetch_rows("SELECT name, content FROM baseline ORDER BY name")
        return {name: _json_or_text(content) for name, content in rows}

    def _fetch_rows(self, query: str, values: Values | None = None) -> list[tuple[Any, ...]]:
        """What one query finds; nothing where there is no history yet."""
        if not self._database.exists():
            return []
        with self._database.reading() as session:
            return session.fetch_rows(query, values or {})


def insert_entry(session: Session, entry: HistoryEntry) -> None:
    """Add or replace one run within the session's transaction."""
    record = entry.record
    key_number = _number_of_key(session, record.key)
    session.write_rows("DELETE FROM run WHERE run_id = :run", [{"run": record.run_id}])
    ((number,),) = session.fetch_rows(
        "INSERT INTO run (run_id, started, finished, cluster, workload, preset, status, code,"
        " commit_id, key_number) VALUES (:run_id, :started, :finished, :cluster, :workload,"
        " :preset, :status, :code, :commit, :key) RETURNING number",
        {
            "run_id": record.run_id,
            "started": record.started,
            "finished": record.finished,
            "cluster": record.cluster,
            "workload": record.workload,
            "preset": record.preset,
            "status": record.status.value,
            "code": record.code,
            "commit": record.commit,
            "key": key_number,
        },
    )
    rows = [
        {"run": number, "metric": _number_of_metric(session, name, figure), "value": figure.value}
        # In one order, so that two writers never wait for each other.
        for name, figure in sorted(record.figures.items())
    ]
    session.write_rows("INSERT INTO figure VALUES (:run, :metric, :value)", rows)
    curves = {name: list(points) for name, points in entry.curves.items()}
    document = {
        "run": number,
        "result": result_document(entry.result),
        "curves": pack_document(curves),
    }
    session.write_rows("INSERT INTO run_document VALUES (:run, :result, :curves)", [document])


def migrate_first_version(session: Session) -> None:
    """Runs of version 1 kept their result alone: what else the key holds is unknown."""
    ids = session.fetch_rows("SELECT run_id FROM run_1 ORDER BY finished")
    for (run_id,) in ids:
        ((started, finished, preset, code, text),) = session.fetch_rows(
            "SELECT started, finished, preset, code, result FROM run_1 WHERE run_id = :run",
            {"run": run_id},
        )
        result = parse_result(pack_document(json.loads(text)), where="the history")
        record = RunRecord(
            run_id=run_id,
            started=started,
            finished=finished,
            cluster=result.cluster,
            workload=result.workload,
            preset=preset,
            status=result.status,
            code=code,
            key=ComparisonKey(
                workload=result.workload, nodes=fold_nodeset(node.name for node in result.used)
            ),
            figures=figures_of(result),
        )
        insert_entry(session, HistoryEntry(record=record, result=result))


def _number_of_key(session: Session, key: ComparisonKey) -> int:
    values = {"digest": key.digest, "content": key_to_json(key)}
    session.write_rows(
        "INSERT INTO comparison_key (digest, content) VALUES (:digest, :content)"
        " ON CONFLICT (digest) DO NOTHING",
        [values],
    )
    ((number,),) = session.fetch_rows(
        "SELECT number FROM comparison_key WHERE digest = :digest", {"digest": key.digest}
    )
    return int(number)


def _number_of_metric(session: Session, name: str, figure: RunFigure) -> int:
    values = {"name": name, "unit": figure.unit, "direction": figure.direction.value}
    find = (
        "SELECT number FROM metric WHERE name = :name AND unit = :unit AND direction = :direction"
    )
    rows = session.fetch_rows(find, values)
    if not rows:
        session.write_rows(
            "INSERT INTO metric (name, unit, direction) VALUES (:name, :unit, :direction)"
            " ON CONFLICT (name, unit, direction) DO NOTHING",
            [values],
        )
        rows = session.fetch_rows(find, values)
    return int(rows[0][0])


def _condition(query: RunQuery) -> tuple[str, dict[str, Any]]:
    """WHERE of what the query names, with its values."""
    parts = {
        "workload": "run.workload = :workload",
        "cluster": "run.cluster = :cluster",
        "since": "run.finished >= :since",
        "before": "run.finished < :before",
        "key_digest": "comparison_key.digest = :key_digest",
        "metric": "EXISTS (SELECT 1 FROM figure WHERE run_number = run.number"
        " AND metric_number IN (SELECT number FROM metric WHERE name = :metric))",
    }
    values = {name: getattr(query, name) for name in parts if getattr(query, name) is not None}
    conditions = [parts[name] for name in values]
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _records(session: Session, numbers: Sequence[int]) -> list[RunRecord]:
    """The runs with these numbers, in their order."""
    if not numbers:
        return []
    marks = ", ".join(f":n{index}" for index in range(len(numbers)))
    values = {f"n{index}": number for index, number in enumerate(numbers)}
    rows = session.fetch_rows(
        f"SELECT run.number, {RUN_COLUMNS}{_FROM} WHERE run.number IN ({marks})", values
    )
    figures = figures_from_rows(
        session.fetch_rows(
            "SELECT run_number, name, unit, direction, value FROM figure"
            f" JOIN metric ON metric.number = metric_number WHERE run_number IN ({marks})",
            values,
        )
    )
    found = {row[0]: record_from_row(row[1:], figures.get(row[0], {})) for row in rows}
    return [found[number] for number in numbers if number in found]


def _parsed(parse: Any, content: bytes, where: str) -> Any:
    try:
        return parse(content, where=where)
    except ValueError as error:
        raise _damaged(where, error) from error


def _parsed_json(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _damaged(where, error) from error


def _json_or_text(content: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content


def _damaged(where: str, error: ValueError) -> UsageError:
    return UsageError(
        "an entry of the history is damaged",
        id="OR-STORE-004",
        where=where,
        why=str(error),
        remedy="orchestrate history import reads the folders of the runs again",
    )
