"""Runs as people name and list them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.adapters.report.result_json import parse_object, to_object
from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import (
    Liveness,
    ProcessIdentity,
    liveness,
    read_identity,
)
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean_run
from orchestrator.core.verdict.result import Result

LAST = "last"
UNATTENDED = "unattended"
_UNDER_WAY = {
    Liveness.ALIVE: "running",
    Liveness.DEAD: UNATTENDED,
    Liveness.ELSEWHERE: "elsewhere",
}


def new_run_id(now: datetime, name: str, source: random.Random) -> str:
    """Sorts by time and reads well: ``20261121-193005-finetune-7f3a``."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    return f"{now:%Y%m%d-%H%M%S}-{slug}-{source.getrandbits(16):04x}"


def find_run(layout: Layout, text: str) -> RunFolder:
    """The run that ``text`` names: an id, an unambiguous beginning of one, or ``last``.

    Raises :class:`UsageError`.
    """
    ids = layout.run_ids()
    if text == LAST and ids:
        return layout.run(max(ids, key=lambda run_id: _created(layout.run(run_id))))
    if text in ids:
        return layout.run(text)
    matches = [run_id for run_id in ids if text and run_id.startswith(text)]
    if len(matches) == 1:
        return layout.run(matches[0])
    raise _unknown(layout, text, matches, ids)


def _unknown(layout: Layout, text: str, matches: list[str], ids: list[str]) -> UsageError:
    if matches:
        what = f"{len(matches)} runs begin with {text!r}"
        remedy = f"name one of: {', '.join(matches[-6:])}"
    elif ids:
        newest_first = sorted(ids, key=lambda run_id: _created(layout.run(run_id)), reverse=True)
        what = f"no run is called {text!r}"
        remedy = f"{did_you_mean_run(text, newest_first)} (all: orchestrate ps)"
    else:
        what, remedy = "there are no runs yet", "orchestrate run --help"
    return UsageError(what, id="OR-STORE-003", where=layout.runs, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line of a listing.

    ``state`` is the result's status, else ``running``, ``unattended`` (its coordinator is gone;
    ranks may still run) or ``elsewhere`` (coordinated from another machine). ``started`` in seconds
    since the epoch.
    """

    run_id: str
    state: str
    cluster: str = ""
    workload: str = ""
    started: float | None = None
    seconds: float | None = None
    exit_code: int | None = None
    cleaned: bool = False  # its folder was removed; the history remembers the rest


def list_runs(layout: Layout, *, limit: int) -> Iterator[RunSummary]:
    """The latest ``limit`` runs on disk, oldest of them first."""
    folders = sorted((layout.run(run_id) for run_id in layout.run_ids()), key=_created)
    yield from map(summarise, folders[-limit:])


def summarise(folder: RunFolder) -> RunSummary:
    """What a listing shows of one run; unreadable parts stay empty."""
    identity = read_identity(folder.coordinator)
    started = identity.at if identity else None
    result = read_result(folder)
    if result is not None:
        return _of_result(result, started)
    names = read_names(folder)
    return RunSummary(
        run_id=folder.run_id,
        state=unfinished_state(identity),
        cluster=names.cluster,
        workload=names.workload,
        started=started,
    )


def unfinished_state(identity: ProcessIdentity | None) -> str:
    """The state of a run without a result, by who coordinates it: see :class:`RunSummary`."""
    return _UNDER_WAY[liveness(identity)]


class RequestNames(NamedTuple):
    """What a run was asked for, by name; empty where that cannot be read."""

    cluster: str
    workload: str
    launcher: str


def read_names(folder: RunFolder) -> RequestNames:
    """From the request, without the rest of it."""
    request = _read_json(folder.request)
    return RequestNames(
        cluster=_text(request, "cluster", "name"),
        workload=_text(request, "job", "workload", "name"),
        launcher=_text(request, "launcher"),
    )


def _of_result(result: Result, started: float | None) -> RunSummary:
    return RunSummary(
        run_id=result.run_id,
        state=result.status.value,
        cluster=result.cluster,
        workload=result.workload,
        started=started,
        seconds=sum(result.timings.values()),
        exit_code=int(result.exit_code),
    )


def write_result(folder: RunFolder, result: Result) -> None:
    """Put ``result.json`` in place; from then on the run counts as finished."""
    write_json(folder.result, to_object(result))


def read_result(folder: RunFolder) -> Result | None:
    """The finished run's result; None while there is none.

    Raises :class:`UsageError` for a result of a newer version.
    """
    try:
        content = folder.result.read_bytes()
    except FileNotFoundError:
        return None
    return parse_object(json.loads(content), where=str(folder.result))


def last_written(folder: RunFolder) -> float:
    """When the run's coordinator last wrote what happened, in seconds since the epoch; 0 where
    there is no such run.
    """
    files = (folder.result, folder.journal, folder.progress)
    return max(filter(None, map(_modified, files)), default=_modified(folder.path))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _created(folder: RunFolder) -> tuple[float, str]:
    identity = read_identity(folder.coordinator)
    return (identity.at if identity else folder.path.stat().st_mtime, folder.run_id)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _text(data: Any, *keys: str) -> str:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""
