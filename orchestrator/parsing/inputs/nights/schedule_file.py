"""What people write of a schedule -> ``Schedule``: the command line, and its YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import nearest_name
from orchestrator.core.nightly.schedule import (
    DEFAULT_CATCH_UP_S,
    DEFAULT_LIMIT_S,
    DEFAULT_STATUS_EVERY_S,
    MAX_JITTER_S,
    Overlap,
    Schedule,
)
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import InputProblem, parse_yaml, refuse_input

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_ONE_MINUTE, _ONE_HOUR = re.compile(r"[0-5]?[0-9]"), re.compile(r"[01]?[0-9]|2[0-3]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
STATUS_KINDS = {".md": "markdown", ".html": "html", ".json": "json", ".txt": "text"}
AT_REMEDY = "write 19:00, or five cron fields with one minute and one hour: '0 19 * * 1-5'"


class ScheduleFile(Strict):
    """``schedule.yaml``."""

    name: str
    cluster: str = Field(min_length=1)
    workload: str = ""
    suite: str = ""
    at: str
    tz: str
    since: float
    set: list[str] = Field(default_factory=list)
    nodes: str = ""
    overlap: Literal["skip", "queue"] = "skip"
    catch_up_s: float = Field(DEFAULT_CATCH_UP_S, ge=0, le=7 * 86400)
    jitter_s: float = Field(0.0, ge=0, le=MAX_JITTER_S)
    limit_s: float = Field(DEFAULT_LIMIT_S, ge=60, le=31 * 86400)
    environment: dict[str, str] = Field(default_factory=dict)
    env_file: str = ""
    status_file: str = ""
    status_every_s: float = Field(DEFAULT_STATUS_EVERY_S, ge=1, le=3600)
    folder: str = "/"


def load_schedule(data: str | bytes, source: str) -> Schedule:
    """Validate a schedule's file. Raises :class:`UsageError` with file:line:column."""
    document = parse_yaml(data, source)
    entry = validate_document(ScheduleFile, document)
    problems = []
    checks = {"name": parse_name, "at": parse_at, "tz": parse_zone, "status_file": status_kind}
    for key, check in checks.items():
        try:
            check(getattr(entry, key))
        except UsageError as error:
            problems.append(InputProblem(document.place([key]), error.what, error.remedy))
    if bool(entry.workload) == bool(entry.suite) or (entry.suite and entry.set):
        remedy = "write workload, and set for its parameters, or suite"
        place = document.place(["suite" if entry.suite else "workload"])
        problems.append(InputProblem(place, "a schedule runs a workload or a suite", remedy))
    if problems:
        refuse_input(problems, source)
    return Schedule(
        name=entry.name,
        cluster=entry.cluster,
        workload=entry.workload,
        suite=entry.suite,
        at=parse_at(entry.at),
        zone=entry.tz,
        since=entry.since,
        settings=tuple(entry.set),
        nodes=entry.nodes,
        overlap=Overlap(entry.overlap),
        catch_up_s=entry.catch_up_s,
        jitter_s=entry.jitter_s,
        limit_s=entry.limit_s,
        environment=parse_environment(entry.environment),
        env_file=entry.env_file,
        status_file=entry.status_file,
        status_every_s=entry.status_every_s,
        folder=entry.folder,
    )


def schedule_fields(schedule: Schedule) -> dict[str, object]:
    """What its file holds."""
    return {
        "name": schedule.name,
        "cluster": schedule.cluster,
        "workload": schedule.workload,
        "suite": schedule.suite,
        "at": schedule.at,
        "tz": schedule.zone,
        "since": schedule.since,
        "set": list(schedule.settings),
        "nodes": schedule.nodes,
        "overlap": schedule.overlap.value,
        "catch_up_s": schedule.catch_up_s,
        "jitter_s": schedule.jitter_s,
        "limit_s": schedule.limit_s,
        "environment": dict(schedule.environment),
        "env_file": schedule.env_file,
        "status_file": schedule.status_file,
        "status_every_s": schedule.status_every_s,
        "folder": schedule.folder,
    }


def parse_name(text: str) -> str:
    """A schedule's name: it becomes part of file and unit names. Raises :class:`UsageError`."""
    if not NAME.fullmatch(text):
        remedy = "use up to 40 of a-z, 0-9, '-' and '_', a letter or digit first"
        raise UsageError(f"not a schedule's name: {text!r}", id="nightly.name", remedy=remedy)
    return text


def parse_at(text: str) -> str:
    """Cron fields for ``19:00`` or for five fields. Raises :class:`UsageError`."""
    clock = _CLOCK.fullmatch(text.strip())
    if clock:
        return f"{int(clock[2])} {int(clock[1])} * * *"
    fields = text.split()
    if len(fields) != 5:
        raise UsageError(f"not a time of day: {text!r}", id="nightly.at", remedy=AT_REMEDY)
    if not _ONE_MINUTE.fullmatch(fields[0]) or not _ONE_HOUR.fullmatch(fields[1]):
        what = f"more than one run a night, or none: {text!r}"
        raise UsageError(what, id="nightly.at", remedy=AT_REMEDY)
    expression = " ".join(fields)
    try:
        # The next one exists: 0 0 30 2 * never comes.
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        what = f"not a schedule of cron: {text!r}: {error}"
        raise UsageError(what, id="nightly.at", remedy=AT_REMEDY) from error
    return expression


def parse_zone(text: str) -> str:
    """A time zone of the IANA database. Raises :class:`UsageError`."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        what = f"no time zone is called {text!r}"
        raise UsageError(what, id="nightly.zone", remedy=_zone_remedy(text)) from error
    return text


def _zone_remedy(text: str) -> str:
    known = available_timezones()
    if not known:
        return "install the package tzdata"
    match = nearest_name(text, sorted(known))
    if match is not None:
        return f"did you mean {match!r}?"
    return "write AREA/CITY, such as Europe/Berlin, or UTC; timedatectl list-timezones lists them"


def status_kind(file: str) -> str:
    """The format of a status file, by the end of its name; text for no file. Raises
    :class:`UsageError`.
    """
    ending = PurePath(file).suffix.lower()
    if file and ending not in STATUS_KINDS:
        what = f"the name of the status file does not say its format: {file!r}"
        remedy = f"let it end with {', '.join(STATUS_KINDS)}"
        raise UsageError(what, id="nightly.status", remedy=remedy)
    return STATUS_KINDS.get(ending, "text")


def parse_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Variables by name. Raises :class:`UsageError`."""
    for name, value in given.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value or "\n" in value:
            what = f"not a variable: {name[:80]!r}"
            raise UsageError(what, id="nightly.env", remedy="write NAME=value, in one line")
    return dict(given)


def parse_env_file(text: str, source: str) -> dict[str, str]:
    """The variables of a file of ``NAME=value`` lines; ``#`` begins a comment line. Values are not
    repeated in errors. Raises :class:`UsageError`.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not _VARIABLE.fullmatch(name.strip()):
            what, remedy = "not a variable", "write NAME=value, one a line"
            raise UsageError(what, id="nightly.env", where=f"{source}:{number}", remedy=remedy)
        found[name.strip()] = value.strip().strip("'\"")
    return found
