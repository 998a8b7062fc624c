"""Schedules on disk: ``$ORCHESTRATE_HOME/nightly/<name>/``, and what became of their nights."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from orchestrator.adapters.nightly.due_times import past_nights
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.detection.night_series import Acknowledgement, FigureState, KnownChange
from orchestrator.core.nightly.nights import Night, NightRecord, RecordKind, fold_nights
from orchestrator.core.nightly.schedule import Schedule
from orchestrator.parsing.inputs.nights.acknowledgements import parse_acknowledgements
from orchestrator.parsing.inputs.nights.schedule_file import (
    load_schedule,
    parse_name,
    schedule_fields,
)

MAX_LOG_BYTES = 8 << 20  # of a log only this much is read, from its end: decades of nights
HEAD = (
    "# A schedule of orchestrate; see orchestrate nightly show {name}. Edit it, or add it again.\n"
)


@dataclass(frozen=True, slots=True)
class NightlyFolder:
    """The files of one schedule."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def schedule(self) -> Path:
        return self.path / "schedule.yaml"

    @property
    def log(self) -> Path:
        """One JSON line for everything that became of a night."""
        return self.path / "nights.jsonl"

    @property
    def changes(self) -> Path:
        """One JSON line for every change that was found, and the findings of the latest night."""
        return self.path / "changes.jsonl"

    @property
    def findings(self) -> Path:
        return self.path / "findings.json"

    @property
    def acknowledged(self) -> Path:
        return self.path / "acknowledged.yaml"

    @property
    def lock(self) -> Path:
        """Locked while a night of the schedule runs."""
        return self.path / "night.lock"

    @property
    def wake(self) -> Path:
        """The program that cron or systemd starts."""
        return self.path / "wake"

    @property
    def wake_log(self) -> Path:
        return self.path / "wake.log"

    def output(self, night: str) -> Path:
        """What the runs of a night printed."""
        return self.path / "output" / f"{night}.log"


def nightly_folder(layout: Layout, name: str) -> NightlyFolder:
    """Where the schedule ``name`` is kept, existing or not. Raises :class:`UsageError`."""
    return NightlyFolder(layout.home / "nightly" / parse_name(name))


def schedule_names(layout: Layout) -> list[str]:
    """The schedules of this home, sorted."""
    folder = layout.home / "nightly"
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob("*/schedule.yaml"))


def find_schedule(layout: Layout, name: str) -> tuple[NightlyFolder, Schedule]:
    """A schedule by its name. Raises :class:`UsageError`."""
    folder = nightly_folder(layout, name)
    try:
        text = folder.schedule.read_bytes()
    except FileNotFoundError as error:
        names = schedule_names(layout)
        remedy = did_you_mean(name, names) if names else "orchestrate nightly add --help"
        what = f"no schedule is called {name!r}"
        raise UsageError(what, id="nightly.name", where=folder.path, remedy=remedy) from error
    return folder, load_schedule(text, str(folder.schedule))


def save_schedule(folder: NightlyFolder, schedule: Schedule) -> None:
    """Write the schedule's file. Raises ``OSError``."""
    make_private_dir(folder.path)
    make_private_dir(folder.path / "output")
    yaml, text = YAML(), StringIO()
    yaml.dump(schedule_fields(schedule), text)
    content = HEAD.format(name=schedule.name) + text.getvalue()
    write_atomic(folder.schedule, content.encode())


@contextmanager
def working_on(folder: NightlyFolder) -> Iterator[bool]:
    """Whether this process alone works on the schedule while inside; the kernel frees the lock
    however the process ends. Programs that are started do not inherit it.
    """
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def is_busy(folder: NightlyFolder) -> bool:
    """Whether a process works on a night of the schedule."""
    if not folder.lock.exists():
        return False
    with working_on(folder) as free:
        return not free


def append_record(folder: NightlyFolder, record: NightRecord) -> None:
    """Add one line, on disk before this returns. Raises ``OSError``."""
    _append_line(folder.log, asdict(record))


def read_records(folder: NightlyFolder) -> list[NightRecord]:
    """The schedule's log, oldest first; lines that a crash tore are left out."""
    found = []
    for data in _read_lines(folder.log):
        try:
            found.append(NightRecord(**{**data, "kind": RecordKind(data["kind"])}))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def read_nights(folder: NightlyFolder, schedule: Schedule, *, now: float) -> tuple[Night, ...]:
    """How every night stands that was due in the last two weeks or has a record."""
    due = past_nights(schedule, now)
    busy = is_busy(folder)
    return fold_nights(due, read_records(folder), now=now, busy=busy)


def append_change(folder: NightlyFolder, change: KnownChange) -> None:
    """Remember a change, so that it is reported as new once. Raises ``OSError``."""
    _append_line(folder.changes, asdict(change))


def read_changes(folder: NightlyFolder) -> list[KnownChange]:
    """What earlier nights found."""
    found = []
    for data in _read_lines(folder.changes):
        try:
            found.append(KnownChange(**{**data, "state": FigureState(data["state"])}))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def read_acknowledged(folder: NightlyFolder) -> tuple[Acknowledgement, ...]:
    """What people accepted. Raises :class:`UsageError` for a file that is not valid."""
    try:
        text = folder.acknowledged.read_bytes()
    except FileNotFoundError:
        return ()
    return parse_acknowledgements(text, str(folder.acknowledged))


def _append_line(path: Path, data: dict[str, Any]) -> None:
    line = json.dumps(data, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line  # the line before was torn
        os.write(fd, line)
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            content = file.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        return
    for line in content.splitlines():
        try:
            data = json.loads(line)
        except ValueError:
            continue
        if isinstance(data, dict):
            yield data
