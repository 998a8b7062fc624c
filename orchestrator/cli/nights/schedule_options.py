"""The schedule that the options of ``nightly add`` describe."""

from __future__ import annotations

import os
import time
from typing import Any

from orchestrator.adapters.catalog.catalog import absolute_name
from orchestrator.adapters.nightly.schedule_store import nightly_folder
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError
from orchestrator.core.nightly.schedule import Overlap, Schedule
from orchestrator.parsing.inputs.nights.schedule_file import (
    load_schedule,
    parse_at,
    parse_environment,
    parse_name,
    parse_zone,
    status_kind,
)


def read_schedule(layout: Layout, name: str, given: dict[str, Any]) -> Schedule:
    """The schedule that the options describe. Raises ``UsageError``."""
    _require_one_job(given)
    status_kind(given["status_file"] or "")
    folder = nightly_folder(layout, parse_name(name))
    since = time.time()
    if folder.schedule.exists():
        since = load_schedule(folder.schedule.read_bytes(), str(folder.schedule)).since
    variables = dict(_split_variable(pair) for pair in given["env"])
    return Schedule(
        name=name,
        cluster=absolute_name(given["cluster"]),
        workload=absolute_name(given["workload"]),
        suite=absolute_name(given["suite"]),
        at=parse_at(given["at"]),
        zone=parse_zone(given["zone"]),
        since=since,
        settings=tuple(given["settings"]),
        nodes=given["nodes"],
        overlap=Overlap(given["overlap"]),
        catch_up_s=given["catch_up"] * 3600,
        jitter_s=given["jitter"],
        limit_s=given["limit"] * 3600,
        environment=parse_environment(variables),
        env_file=_absolute_path(given["env_file"]),
        status_file=_absolute_path(given["status_file"]),
        status_every_s=given["status_every"],
        folder=os.getcwd(),  # noqa: PTH109 - as text
    )


def _require_one_job(given: dict[str, Any]) -> None:
    if bool(given["workload"]) == bool(given["suite"]):
        what, remedy = "a schedule runs a workload or a suite", "give --workload W or --suite S"
        raise UsageError(what, id="nightly.job", remedy=remedy)
    if given["suite"] and given["settings"]:
        what, remedy = "--set is for workloads", "write parameters into the suite's file"
        raise UsageError(what, id="nightly.job", remedy=remedy)


def _split_variable(pair: str) -> tuple[str, str]:
    """Name and value. A name alone would be an empty variable every night."""
    name, equals, value = pair.partition("=")
    if not equals:
        what = f"--env: no value in {name[:80]!r}"
        remedy = "write NAME=value, or put it into a file: --env-file FILE"
        raise UsageError(what, id="nightly.env", remedy=remedy)
    return name, value


def _absolute_path(given: str | None) -> str:
    """The path from anywhere; nothing stays nothing."""
    return os.path.abspath(given) if given else ""  # noqa: PTH100 - links stay as they are
