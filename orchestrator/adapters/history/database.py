"""What the history needs of a database: sessions that read or write, with named parameters.

Statements are written once, in the SQL that SQLite and PostgreSQL share; values always travel as
parameters ``:name``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from orchestrator.core.base.errors import ExitCode, OrchestrateError, UsageError

Values = Mapping[str, Any]


class HistoryUnavailable(OrchestrateError):
    """The database does not answer, or is held by others for too long."""

    exit_code: ClassVar[ExitCode] = ExitCode.PREFLIGHT


class Session(Protocol):
    """One transaction. What a method raises is an ``OrchestrateError`` already."""

    def fetch_rows(self, statement: str, values: Values = ...) -> list[tuple[Any, ...]]:
        """All rows that ``statement`` finds or returns."""
        ...

    def write_rows(self, statement: str, rows: Sequence[Values]) -> None:
        """Run ``statement`` once for each of ``rows``."""
        ...


class HistoryDatabase(Protocol):
    """A database with the history's tables. ``where`` names it for people, without secrets."""

    @property
    def where(self) -> str: ...

    def exists(self) -> bool:
        """Whether anything was ever written; False where reading would find nothing."""
        ...

    def reading(self) -> AbstractContextManager[Session]:
        """A consistent view. Raises ``UsageError`` for a newer or damaged database."""
        ...

    def writing(self) -> AbstractContextManager[Session]:
        """A transaction that is durable when the context ends, and nothing of it if it raises.
        Creates tables and migrates older ones first.
        """
        ...


def newer_schema(where: str, version: int, known: int) -> UsageError:
    """The refusal of a database that a later version of this program wrote."""
    return UsageError(
        f"the history has schema version {version}; this program knows up to {known}",
        id="OR-STORE-002",
        where=where,
        remedy="use the version of orchestrate that wrote it, or another ORCHESTRATE_HOME",
    )
