"""Which history is meant: the file below the home, or what ``ORCHESTRATE_HISTORY`` names."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.adapters.history.sqlite_database import SqliteDatabase
from orchestrator.adapters.history.store import HistoryStore, migrate_first_version
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError

VARIABLE = "ORCHESTRATE_HISTORY"
_POSTGRESQL = ("postgresql://", "postgres://", "postgresql+psycopg://")
_SQLITE = "sqlite:///"


def open_history(layout: Layout) -> HistoryStore:
    """Raises :class:`UsageError` for a URL of another kind, or where what it needs is missing."""
    url = os.environ.get(VARIABLE, "")
    if not url:
        return sqlite_history(layout.history)
    if url.startswith(_SQLITE):
        return sqlite_history(_file_of(url.removeprefix(_SQLITE)))
    if url.startswith(_POSTGRESQL):
        from orchestrator.adapters.history.postgres_database import PostgresDatabase

        return HistoryStore(PostgresDatabase(url))
    raise UsageError(
        f"{VARIABLE} is no URL of a history that is known",
        id="OR-STORE-014",
        remedy="postgresql://USER@HOST/DATABASE, sqlite:///FILE, or unset it",
    )


def _file_of(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    if not given or path.is_dir():
        what = f"{VARIABLE} names a folder, not the file of a history"
        remedy = "write sqlite:////FOLDER/history.sqlite"
        raise UsageError(what, id="OR-STORE-014", where=path, remedy=remedy)
    return path


def sqlite_history(path: Path) -> HistoryStore:
    """The history in one SQLite file, which need not exist yet."""
    return HistoryStore(SqliteDatabase(path, migrate_first_version))
