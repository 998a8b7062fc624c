"""The embedded default: one SQLite file in WAL mode, opened for each transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.adapters.history.database import HistoryUnavailable, Values, newer_schema
from orchestrator.adapters.history.schema import SQLITE, VERSION, create_statements
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.core.base.errors import UsageError

BUSY_S = 30.0  # for other writers; a transaction takes milliseconds


class SqliteSession:
    """See ``Session``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fetch_rows(self, statement: str, values: Values | None = None) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, dict(values or {})).fetchall()

    def write_rows(self, statement: str, rows: Sequence[Values]) -> None:
        self._connection.executemany(statement, rows)


Migration = Callable[[SqliteSession], None]


class SqliteDatabase:
    """See ``HistoryDatabase``. ``migrate_first`` turns the tables of version 1 into today's."""

    def __init__(self, path: Path, migrate_first: Migration) -> None:
        self._path = path
        self._migrate_first = migrate_first

    @property
    def where(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        return self._path.exists()

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteSession]:
        with self._connected() as connection:
            if _version(connection, self.where) < VERSION:
                self._upgrade(connection)
            connection.execute("BEGIN")
            yield SqliteSession(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[SqliteSession]:
        make_private_dir(self._path.parent)
        with self._connected() as connection:
            if _version(connection, self.where) < VERSION:
                self._upgrade(connection)
            connection.execute("BEGIN IMMEDIATE")
            yield SqliteSession(connection)
            connection.execute("COMMIT")

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        """All or nothing; another process may have done it meanwhile."""
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        version = _version(connection, self.where)
        if version < VERSION:
            if version == 1:
                connection.execute("ALTER TABLE run RENAME TO run_1")
                connection.execute("DROP INDEX run_of_workload")
            for statement in create_statements(SQLITE):
                connection.execute(statement)
            if version == 1:
                self._migrate_first(SqliteSession(connection))
                connection.execute("DROP TABLE run_1")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _address(self) -> tuple[str, bool]:
        """What to open, and whether it is a URI. In a folder that may not be written SQLite cannot
        make the files that readers share: a file with nothing beside it is read as one that no one
        changes, such as a copy.
        """
        beside = self._path.with_name(f"{self._path.name}-wal")
        if os.access(self._path.parent, os.W_OK) or not self._path.is_file() or beside.exists():
            return str(self._path), False
        return f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", True

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        address, uri = self._address()
        try:
            connection = sqlite3.connect(address, timeout=BUSY_S, isolation_level=None, uri=uri)
        except sqlite3.Error as error:
            raise self._explain(error) from error
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            connection.close()  # rolls an open transaction back

    def _explain(self, error: sqlite3.Error) -> HistoryUnavailable | UsageError:
        # Its subclasses say that another process holds it, or that the disk or the rights fail.
        if type(error) is not sqlite3.DatabaseError:
            return HistoryUnavailable(
                "the history cannot be used",
                id="OR-STORE-012",
                where=self.where,
                why=str(error),
                remedy="check the disk and the owner of the file, then repeat the command",
            )
        return UsageError(
            "the history is damaged; nothing was changed",
            id="OR-STORE-013",
            where=self.where,
            why=str(error),
            remedy=f"mv {self.where} {self.where}.damaged (and its -wal and -shm, if any), restore "
            "a copy, or rebuild it from the folders of the runs: orchestrate history import",
        )


def _version(connection: sqlite3.Connection, where: str) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise newer_schema(where, version, VERSION)
    return int(version)
