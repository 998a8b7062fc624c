"""What archives of suites say: every step with its reason, and the result of its run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.adapters.archive.read_archive import ReadArchive, read_archive
from orchestrator.adapters.report.result_json import parse_object
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_archive import KIND
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    find_suite_run,
    read_order,
    read_suite_result,
    suite_run_ids,
)
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.verdict.result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedStep:
    """A step of a suite that was archived. ``made``: of the archive, in seconds since the epoch;
    ``left_out``: by ``--only`` or ``--skip``, so that this archive says nothing of it; ``result``
    None = it has no run, or that left none.
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
    left_out: bool
    run_id: str
    result: Result | None


def gather_steps(layout: Layout, named: Sequence[str]) -> list[ArchivedStep]:
    """All steps of the archives that people name; without any, each step of each suite on each
    cluster from the archive that says the last of it. Raises as the two functions that it calls.
    """
    steps = [step for path in find_archives(layout, named) for step in read_steps_of(path)]
    return steps if named else newest_steps(steps)


def newest_steps(steps: Iterable[ArchivedStep]) -> list[ArchivedStep]:
    """Each step that a suite's newest archive on a cluster lists, as the last archive in which it
    was not left out has it; one that was always left out, from the newest.
    """
    found = []
    by_age = sorted(steps, key=lambda step: (step.suite, step.cluster, step.made, step.archive))
    for _, group in groupby(by_age, key=lambda step: (step.suite, step.cluster)):
        of_suite = list(group)
        said = {step.step: step for step in of_suite if not step.left_out}
        newest = (step for step in of_suite if step.archive == of_suite[-1].archive)
        found += [said.get(step.step, step) for step in newest]
    return found


def find_archives(layout: Layout, named: Iterable[str]) -> list[Path]:
    """The archives that people name by path or by the run of a suite; without any, of each suite on
    each cluster the latest, and of the earlier ones those with steps that were left out since.
    Raises :class:`UsageError`, also where there is none.
    """
    found = [_archive_named(layout, name) for name in named] or list(_telling_archives(layout))
    if not found:
        what, remedy = "no run of a suite is archived here", "orchestrate suite run --help"
        raise UsageError(what, id="suite.publish", where=layout.suites, remedy=remedy)
    return found


def _telling_archives(layout: Layout) -> Iterator[Path]:
    """Latest first. ``untold``: by suite and cluster, the steps of its latest archive that no
    archive yet says anything of.
    """
    untold: dict[tuple[str, str], set[str]] = {}
    for run_id in reversed(suite_run_ids(layout)):
        folder = SuiteFolder(layout.suites / run_id)
        result = read_suite_result(folder) or {}
        place = (result.get("archive") or {}).get("path")
        if not place or not Path(place).is_file():
            continue
        key = str(result.get("suite")), str(result.get("cluster"))
        is_latest = key not in untold
        left = untold.setdefault(key, {str(step["name"]) for step in result["steps"]})
        told = left - read_order(folder).skipped.keys()
        left -= told
        if told or is_latest:
            yield Path(place)


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
    found = read_archive(path, _is_read)
    if found.manifest.kind != KIND:
        what = f"this is an archive of kind {found.manifest.kind!r}, not of a suite"
        raise UsageError(what, id="suite.publish", where=path, remedy="name another file")
    try:
        suite = json.loads(found.files["result.json"])
        left_out = json.loads(found.files["order.json"])["skipped"]
        return [_archived_step(found, suite, step, left_out) for step in suite["steps"]]
    except (ValueError, KeyError, TypeError, AttributeError, OrchestrateError) as error:
        what = "the results in this archive cannot be read"
        remedy = "use the version that wrote it, or a newer one"
        why = f"{type(error).__name__}: {error}"[:300]
        raise UsageError(what, id="suite.publish", where=path, why=why, remedy=remedy) from error


def _is_read(path: str) -> bool:
    own = path in {"result.json", "order.json"}
    return own or (path.count("/") == 2 and path.endswith("/result.json"))


def _archived_step(
    found: ReadArchive,
    suite: Mapping[str, Any],
    step: Mapping[str, Any],
    left_out: Mapping[str, str],
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
        left_out=step["name"] in left_out,
        run_id=run_id,
        result=result,
    )
