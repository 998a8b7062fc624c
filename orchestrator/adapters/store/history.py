"""History: one row per finished run, in one SQLite file (WAL; a newer schema is refused)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.report.result_json import parse_object, to_object
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.core.base.errors import UsageError
from orchestrator.core.verdict.result import Result

VERSION = 1

_SCHEMA = """
CREATE TABLE run (
    run_id    TEXT PRIMARY KEY,
    started   REAL NOT NULL,
    finished  REAL NOT NULL,
    cluster   TEXT NOT NULL,
    workload  TEXT NOT NULL,
    preset    TEXT,
    status    TEXT NOT NULL,
    code      TEXT NOT NULL,
    result    TEXT NOT NULL
) STRICT;
CREATE INDEX run_of_workload ON run (workload, cluster, finished);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A finished run. Times in seconds since the epoch; ``code`` is the snapshot's digest."""

    started: float
    finished: float
    preset: str | None
    code: str
    result: Result


class History:
    """The history file. Each call opens it for itself, so that no lock outlives a call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, entry: HistoryEntry) -> None:
        """Add or replace the run's row. Raises ``sqlite3.Error``, ``UsageError``."""
        result = entry.result
        row = (
            result.run_id,
            entry.started,
            entry.finished,
            result.cluster,
            result.workload,
            entry.preset,
            result.status.value,
            entry.code,
            json.dumps(to_object(result), allow_nan=False),
        )
        with self._connected() as connection:
            connection.execute("INSERT OR REPLACE INTO run VALUES (?,?,?,?,?,?,?,?,?)", row)

    def find(self, beginning: str) -> HistoryEntry | None:
        """The run whose id is ``beginning``, else the only one whose id begins with it."""
        found = self._select(
            "WHERE substr(run_id, 1, ?) = ? ORDER BY run_id = ? DESC LIMIT 2",
            (len(beginning), beginning, beginning),
        )
        exact = bool(found) and found[0].result.run_id == beginning
        return found[0] if exact or len(found) == 1 else None

    def recent(
        self, *, limit: int = 100, workload: str | None = None, cluster: str | None = None
    ) -> list[HistoryEntry]:
        """The latest runs, newest first, of one workload or cluster if named."""
        return self._select(
            "WHERE workload = coalesce(?, workload) AND cluster = coalesce(?, cluster)"
            " ORDER BY finished DESC LIMIT ?",
            (workload, cluster, limit),
        )

    def _select(self, rest: str, values: tuple[object, ...]) -> list[HistoryEntry]:
        if not self._path.exists():
            return []
        columns = "SELECT started, finished, preset, code, result FROM run "
        with self._connected() as connection:
            rows = connection.execute(columns + rest, values).fetchall()
        return [
            HistoryEntry(
                started=started,
                finished=finished,
                preset=preset,
                code=code,
                result=parse_object(json.loads(result), where=str(self._path)),
            )
            for started, finished, preset, code, result in rows
        ]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        make_private_dir(self._path.parent)
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            self._migrate(connection)
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()  # rolls an open transaction back

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise UsageError(
                f"the history has schema version {version}; this program knows up to {VERSION}",
                id="OR-STORE-002",
                where=self._path,
                remedy="use the version of orchestrate that wrote it, or another ORCHESTRATE_HOME",
            )
        if version < VERSION:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
