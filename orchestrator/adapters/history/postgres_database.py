"""A history that a team shares: PostgreSQL by URL, through SQLAlchemy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.history.database import HistoryUnavailable, Values, newer_schema
from orchestrator.adapters.history.schema import POSTGRESQL, VERSION, create_statements
from orchestrator.core.base.errors import UsageError

try:
    import psycopg
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:
    raise UsageError(
        "the history is in PostgreSQL, and what reads it is not installed",
        id="OR-STORE-015",
        why=str(error),
        remedy=install_command("postgres"),
    ) from error

CONNECT_S = 10
STATEMENT_MS = 60_000
LOCK_MS = 10_000  # a run waits for it at its end
_MIGRATION_LOCK = 0x6F726368  # of our own choosing: one process at a time makes the tables

_MAY_NOT_WRITE = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)


def _options(address: sa.URL) -> str:
    """Those of the URL, such as a ``search_path``, behind ours, which they override."""
    given = address.query.get("options", "")
    theirs = given if isinstance(given, str) else " ".join(given)
    return f"-c statement_timeout={STATEMENT_MS} -c lock_timeout={LOCK_MS} {theirs}".rstrip()


class PostgresSession:
    """See ``Session``."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def fetch_rows(self, statement: str, values: Values | None = None) -> list[tuple[Any, ...]]:
        found = self._connection.execute(sa.text(statement), dict(values or {}))
        return [tuple(row) for row in found]

    def write_rows(self, statement: str, rows: Sequence[Values]) -> None:
        if rows:
            self._connection.execute(sa.text(statement), [dict(row) for row in rows])


class PostgresDatabase:
    """See ``HistoryDatabase``. ``url`` as libpq and SQLAlchemy write it; a password may as well be
    in ``PGPASSWORD`` or ``~/.pgpass``. No connection outlives a transaction.
    """

    def __init__(self, url: str) -> None:
        try:
            address = sa.make_url(url).set(drivername="postgresql+psycopg")
        except (SQLAlchemyError, ValueError) as error:
            raise UsageError(
                "the URL of the history cannot be read",
                id="OR-STORE-014",
                remedy="postgresql://USER@HOST/DATABASE",
            ) from error
        self._address = address
        self._engine = sa.create_engine(
            address,
            poolclass=sa.NullPool,
            isolation_level="READ COMMITTED",
            connect_args={
                "connect_timeout": CONNECT_S,
                "options": _options(address),
            },
        )

    @property
    def where(self) -> str:
        # Anything after the "?" may be a secret, too.
        return self._address.set(query={}).render_as_string(hide_password=True)

    def exists(self) -> bool:
        return True

    @contextlib.contextmanager
    def reading(self) -> Iterator[PostgresSession]:
        with self.writing() as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[PostgresSession]:
        try:
            with self._engine.begin() as connection:
                session = PostgresSession(connection)
                self._prepare(session)
                yield session
        except SQLAlchemyError as error:
            raise self._explain(error) from None  # its text and its cause may hold the URL

    def _prepare(self, session: PostgresSession) -> None:
        """Make the tables, once."""
        # to_regclass would answer from a cache that is older than the lock.
        find = (
            "SELECT 1 FROM pg_catalog.pg_tables"
            " WHERE schemaname = current_schema() AND tablename = 'history_version'"
        )
        if not session.fetch_rows(find):
            session.fetch_rows("SELECT pg_advisory_xact_lock(:lock)", {"lock": _MIGRATION_LOCK})
            if not session.fetch_rows(find):
                self._create_tables(session)
        ((version,),) = session.fetch_rows("SELECT version FROM history_version")
        if version > VERSION:
            raise newer_schema(self.where, version, VERSION)

    def _create_tables(self, session: PostgresSession) -> None:
        for statement in create_statements(POSTGRESQL):
            session.write_rows(statement, [{}])
        session.write_rows("CREATE TABLE history_version (version INTEGER NOT NULL)", [{}])
        session.write_rows("INSERT INTO history_version VALUES (:version)", [{"version": VERSION}])

    def _explain(self, error: SQLAlchemyError) -> HistoryUnavailable:
        cause = error.__cause__
        why = str(cause).splitlines()[0] if isinstance(cause, psycopg.Error) and str(cause) else ""
        remedy = "check that it runs and that ORCHESTRATE_HISTORY names it rightly"
        if isinstance(cause, _MAY_NOT_WRITE):
            remedy = "let ORCHESTRATE_HISTORY name an account that may write"
        elif isinstance(cause, psycopg.errors.LockNotAvailable):
            remedy = "see in pg_stat_activity who holds it, then repeat the command"
        return HistoryUnavailable(
            "the history's database cannot be used",
            id="OR-STORE-012",
            where=self.where,
            why=self._mask(why),
            remedy=remedy,
        )

    def _mask(self, text: str) -> str:
        password = self._address.password
        return text.replace(str(password), "***") if password else text
