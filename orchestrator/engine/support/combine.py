"""One result of several nodes' outputs: the workload's own script, run beside the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.adapters.catalog.bundled import bundled_packages
from orchestrator.adapters.store.end_of_log import last_line
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.workload import Workload
from orchestrator.core.run.events import Event, Failed, Phase
from orchestrator.core.run.kit_reports import Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.last_words import declared_failure
from orchestrator.parsing.replies.kit_records import MAX_LINE_BYTES, parse_report

# It reads what the nodes sent home, on this machine.
LIMIT_S = 900.0
MAX_RECORDS = 10_000
REPORTS = "rank-0.jsonl"
LOG = "combine.log"


async def combine_outputs(state: RunState, folder: RunFolder) -> list[Event]:
    """What the script reports as the run's figures, and that it failed. Nothing where there is no
    such script, or less than two nodes. It is given each node's folder, also of one that left
    nothing: then there is none.
    """
    workload = state.request.job.workload
    names = [name for name, _ in state.planned()]
    outputs = [folder.node_artifacts(name) for name in names]
    if not workload.combine or len(names) < 2 or not any(path.is_dir() for path in outputs):
        return []
    script = Path(workload.folder) / workload.combine
    with tempfile.TemporaryDirectory(prefix="combine-", dir=folder.path) as reports:
        problem = await _run(script, outputs, Path(reports), folder)
        if problem is not None:
            problem = _as_declared(problem, workload)
        head = state.require_plan().head
        events: list[Event] = list(_figures(Path(reports) / REPORTS, head.name, min(head.ranks)))
    if problem is not None:
        events.append(Failed(node="", phase=Phase.CONCLUDED, problem=problem))
    return events


async def _run(
    script: Path, outputs: list[Path], reports: Path, folder: RunFolder
) -> Problem | None:
    """Why it failed; None = it did not. What it writes is in the run's folder."""
    log = folder.path / LOG
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path.parent) for path in bundled_packages()),
        "ORCHESTRATE_REPORT_DIR": str(reports),
        "ORCHESTRATE_OUTPUT_DIR": str(folder.artifacts),
    }
    try:
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(script),
                *map(str, outputs),
                cwd=folder.artifacts,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
            status = await _wait(process)
    except OSError as error:
        return _problem(f"{script} did not start: {error}", log)
    if status == 0:
        return None
    why = f"ended with status {status}" if status is not None else f"took over {LIMIT_S:g} s"
    return _problem(last_line(log, MAX_LINE_BYTES) or f"{script.name} {why}", log)


async def _wait(process: asyncio.subprocess.Process) -> int | None:
    """Its exit status; None when it had to be killed."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _as_declared(problem: Problem, workload: Workload) -> Problem:
    """The failure of the workload's own that the script named, as a rank may."""
    told = declared_failure(problem.message, workload.failures)
    if told is None:
        return problem
    return Problem(id=told.id, message=told.cause, remedy=told.meaning.remedy)


def _problem(message: str, log: Path) -> Problem:
    return Problem(id="OR-RUN-005", message=message, remedy=f"{log} has what the script wrote")


def _figures(reports: Path, node: str, rank: int) -> Iterator[Reported]:
    """Its final figures: the coordinator's own, hence without a position in a rank's file."""
    if not reports.exists():
        return
    with reports.open("rb") as file:
        for _, line in zip(range(MAX_RECORDS), file, strict=False):
            found = parse_report(node, rank, line, position=0)
            if isinstance(found, Reported) and found.step is None:
                yield found
