"""Migrations on disk: ``$ORCHESTRATE_HOME/migrations/<name>/``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
OLD, NEW = "old.tar.gz", "new.tar.gz"


@dataclass(frozen=True, slots=True)
class MigrationFolder:
    """The files of one migration."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def old(self) -> Path:
        """The bundle that ``capture`` made."""
        return self.path / OLD

    @property
    def new(self) -> Path:
        """The bundle of the new hardware, which ``verify`` made last."""
        return self.path / NEW

    @property
    def checklist(self) -> Path:
        """What ``verify`` found last."""
        return self.path / "checklist.json"

    @property
    def markdown(self) -> Path:
        return self.path / "checklist.md"

    @property
    def html(self) -> Path:
        return self.path / "checklist.html"

    @property
    def way_back(self) -> Path:
        """A script, and beside it ``restore/`` with what it restores."""
        return self.path / "way-back.sh"

    @property
    def restore(self) -> Path:
        return self.path / "restore"

    @property
    def way_back_log(self) -> Path:
        return self.path / "way-back.log"


def migration_folder(layout: Layout, name: str) -> MigrationFolder:
    """The folder of that name, existing or not. Raises :class:`UsageError`."""
    if not NAME.fullmatch(name):
        what = f"not a name of a migration: {name[:80]!r}"
        raise UsageError(what, id="migrate.name", remedy="use letters, digits, '_' and '-'")
    return MigrationFolder(layout.home / "migrations" / name)


def known_migrations(layout: Layout) -> list[str]:
    """Those with a folder, by name."""
    home = layout.home / "migrations"
    return sorted(path.name for path in home.iterdir()) if home.is_dir() else []


def captured_migration(layout: Layout, name: str) -> MigrationFolder:
    """One that has been captured. Raises :class:`UsageError` with the nearest name."""
    folder = migration_folder(layout, name)
    if not folder.old.is_file():
        known = known_migrations(layout)
        raise UsageError(
            f"no migration {name!r} was captured here",
            id="migrate.unknown",
            where=folder.path,
            why="a bundle that was made elsewhere is named by --against FILE",
            remedy=did_you_mean(name, known)
            if known
            else f"orchestrate migrate capture {name} --cluster OLD",
        )
    return folder
