"""Run folders into the history: those of before it existed, or of another machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.history.run_entry import describe_run, read_request
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.history.stored_run import HistoryEntry
from orchestrator.adapters.store.layout import RunFolder, valid_run_id
from orchestrator.adapters.store.liveness import read_identity
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.base.errors import OrchestrateError, UsageError


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """How many runs were read, and which folders were not, with the reason."""

    imported: int
    skipped: tuple[tuple[Path, str], ...]


def run_folders(paths: Sequence[Path], *, required: bool) -> Iterator[RunFolder]:
    """The runs that ``paths`` are or hold. Raises :class:`UsageError` for a path that is required
    and no folder.
    """
    for path in paths:
        if not path.is_dir():
            if not required:
                continue
            raise UsageError("no such folder", id="usage.import", where=path)
        if (path / "request.json").exists() or (path / "result.json").exists():
            yield RunFolder(path.absolute())
            continue
        inside = sorted(child for child in path.absolute().iterdir() if child.is_dir())
        yield from (RunFolder(child) for child in inside if valid_run_id(child.name))


def import_folders(store: HistoryStore, folders: Iterator[RunFolder]) -> ImportOutcome:
    """Each finished run in a transaction of its own. Raises for a history that cannot be used."""
    imported, skipped = 0, []
    for folder in folders:
        why = _import_folder(store, folder)
        if why:
            skipped.append((folder.path, why))
        else:
            imported += 1
    return ImportOutcome(imported, tuple(skipped))


def read_entry(folder: RunFolder) -> HistoryEntry:
    """A finished run as the history keeps it. Raises ``ValueError`` with why it cannot be read,
    ``OSError``, and ``OrchestrateError``.
    """
    result, request = read_result(folder), read_request(folder)
    if result is None:
        raise ValueError("it has no result yet")
    if request is None:
        raise ValueError("its request cannot be read")
    identity = read_identity(folder.coordinator)
    finished = folder.result.stat().st_mtime
    started = identity.at if identity else finished - sum(result.timings.values())
    return describe_run(folder, request, result, started=started, finished=finished)


def _import_folder(store: HistoryStore, folder: RunFolder) -> str:
    """Empty, or why the run was not read."""
    try:
        entry = read_entry(folder)
    except (OSError, ValueError, OrchestrateError) as error:
        return str(error).splitlines()[0]
    store.record_run(entry)
    return ""
