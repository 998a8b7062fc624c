"""What archives of suites say: every step with its reason, and the result of its run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.archive.read_archive import ReadArchive, read_archive
from orchestrator.adapters.report.result_json import parse_object
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_archive import KIND
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    find_suite_run,
    read_suite_result,
    suite_run_ids,
)
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.verdict.result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedStep:
    """A step of a suite that was archived. ``made``: of the archive, in seconds since the epoch;
    ``result`` None = it has no run, or that left none.
    """

    suite: str
    cluster: str
    archive: str
    made: float
    step: str
    workload: str
    optional: bool
    state: str
    why: str
    reason: str
    run_id: str
    result: Result | None


def find_archives(layout: Layout, named: Iterable[str]) -> list[Path]:
    """The archives that people name by path or by the run of a suite; without any, the latest of
    each suite on each cluster. Raises :class:`UsageError`, also where there is none.
    """
    paths = [_archive_named(layout, name) for name in named]
    latest: dict[tuple[str, str], Path] = {}
    for run_id in () if paths else suite_run_ids(layout):
        result = read_suite_result(SuiteFolder(layout.suites / run_id)) or {}
        path = Path((result.get("archive") or {}).get("path") or "/nonexistent")
        if path.exists():
            latest[str(result.get("suite")), str(result.get("cluster"))] = path
    found = paths or list(latest.values())
    if not found:
        what, remedy = "no run of a suite is archived here", "orchestrate suite run --help"
        raise UsageError(what, id="suite.publish", where=layout.suites, remedy=remedy)
    return found


def _archive_named(layout: Layout, name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    folder = find_suite_run(layout, name)
    place = (read_suite_result(folder) or {}).get("archive")
    if not place:
        what = f"run {folder.run_id} of a suite is not archived yet"
        remedy = "orchestrate suite run --resume"
        raise UsageError(what, id="suite.publish", where=folder.path, remedy=remedy)
    if not Path(place["path"]).is_file():
        what = f"the archive of {folder.run_id} is not here, but at {place['path']}"
        remedy = "copy it here, and name the file"
        raise UsageError(what, id="suite.publish", where=folder.path, remedy=remedy)
    return Path(place["path"])


def read_steps_of(path: Path) -> list[ArchivedStep]:
    """The steps of one archive, verified. Raises :class:`UsageError`, ``OSError``."""
    found = read_archive(path, _is_result)
    if found.manifest.kind != KIND:
        what = f"this is an archive of kind {found.manifest.kind!r}, not of a suite"
        raise UsageError(what, id="suite.publish", where=path, remedy="name another file")
    try:
        suite = json.loads(found.files["result.json"])
        return [_archived_step(found, suite, step) for step in suite["steps"]]
    except (ValueError, KeyError, TypeError, AttributeError, OrchestrateError) as error:
        what = "the results in this archive cannot be read"
        remedy = "use the version that wrote it, or a newer one"
        why = f"{type(error).__name__}: {error}"[:300]
        raise UsageError(what, id="suite.publish", where=path, why=why, remedy=remedy) from error


def _is_result(path: str) -> bool:
    return path == "result.json" or (path.count("/") == 2 and path.endswith("/result.json"))


def _archived_step(
    found: ReadArchive, suite: Mapping[str, Any], step: Mapping[str, Any]
) -> ArchivedStep:
    run_id = str(step["run_id"])
    content = found.files.get(f"runs/{run_id}/result.json")
    result = None if content is None else parse_object(json.loads(content), where=run_id)
    return ArchivedStep(
        suite=str(suite["suite"]),
        cluster=str(suite["cluster"]),
        archive=found.manifest.name,
        made=found.manifest.made,
        step=str(step["name"]),
        workload=str(step["workload"]),
        optional=bool(step["optional"]),
        state=str(step["state"]),
        why=str(step["why"]),
        reason=str(step["reason"]),
        run_id=run_id,
        result=result,
    )
