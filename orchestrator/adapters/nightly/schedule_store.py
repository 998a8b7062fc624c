"""Schedules on disk: ``$ORCHESTRATE_HOME/nightly/<name>/``, and what became of their nights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from orchestrator.adapters.nightly.due_times import past_nights
from orchestrator.adapters.record_log import append_line, holding, read_log
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


def working_on(folder: NightlyFolder) -> AbstractContextManager[bool]:
    """Whether this process alone works on the schedule while inside."""
    return holding(folder.lock)


def is_busy(folder: NightlyFolder) -> bool:
    """Whether a process works on a night of the schedule."""
    if not folder.lock.exists():
        return False
    with working_on(folder) as free:
        return not free


def append_record(folder: NightlyFolder, record: NightRecord) -> None:
    """Add one line, on disk before this returns. Raises ``OSError``."""
    append_line(folder.log, asdict(record))


def read_records(folder: NightlyFolder) -> list[NightRecord]:
    """The schedule's log, oldest first; lines that a crash tore are left out."""
    return read_log(
        folder.log, lambda data: NightRecord(**{**data, "kind": RecordKind(data["kind"])})
    )


def read_nights(folder: NightlyFolder, schedule: Schedule, *, now: float) -> tuple[Night, ...]:
    """How every night stands that was due in the last two weeks or has a record."""
    due = past_nights(schedule, now)
    busy = is_busy(folder)
    return fold_nights(due, read_records(folder), now=now, busy=busy)


def append_change(folder: NightlyFolder, change: KnownChange) -> None:
    """Remember a change, so that it is reported as new once. Raises ``OSError``."""
    append_line(folder.changes, asdict(change))


def read_changes(folder: NightlyFolder) -> list[KnownChange]:
    """What earlier nights found."""
    return read_log(
        folder.changes, lambda data: KnownChange(**{**data, "state": FigureState(data["state"])})
    )


def read_acknowledged(folder: NightlyFolder) -> tuple[Acknowledgement, ...]:
    """What people accepted. Raises :class:`UsageError` for a file that is not valid."""
    try:
        text = folder.acknowledged.read_bytes()
    except FileNotFoundError:
        return ()
    return parse_acknowledgements(text, str(folder.acknowledged))
