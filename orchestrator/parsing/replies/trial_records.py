"""What a node tells of processes that were tried, and what ranks told of a collective. Untrusted:
all of it is bounded, and what is no record is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.base.outcome import Outcome, TimedOut
from orchestrator.core.fabric.collective_result import STAGES, RankTrial
from orchestrator.parsing.replies.record_lines import as_float
from orchestrator.parsing.replies.supervisor_records import BadRecord, parse_outcome

MAX_PROCESSES = 256
MAX_LINES = 64
MAX_LINE = 2048
MAX_TEXT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedProcess:
    """How a process that was tried ended, and its last lines. ``TimedOut``: it was ended."""

    label: str
    outcome: Outcome
    out: tuple[str, ...]
    err: tuple[str, ...]


def parse_trial(payload: bytes, deadline_s: float) -> tuple[TriedProcess, ...]:
    """The processes of a trial. Raises ``BadRecord``."""
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadRecord("the end of a trial is not JSON") from error
    processes = told.get("processes") if isinstance(told, dict) else None
    if not isinstance(processes, list) or len(processes) > MAX_PROCESSES:
        raise BadRecord("the end of a trial tells of no processes")
    return tuple(_parse_process(process, deadline_s) for process in processes)


def _parse_process(told: object, deadline_s: float) -> TriedProcess:
    if not isinstance(told, dict):
        raise BadRecord("the end of a trial tells of something else than processes")
    outcome = parse_outcome(told.get("outcome"))
    return TriedProcess(
        label=str(told.get("label"))[:MAX_TEXT],
        outcome=TimedOut(deadline_s) if told.get("by_us") is True else outcome,
        out=_parse_lines(told.get("out")),
        err=_parse_lines(told.get("err")),
    )


def _parse_lines(told: object) -> tuple[str, ...]:
    if not isinstance(told, list):
        return ()
    return tuple(line[:MAX_LINE] for line in told[-MAX_LINES:] if isinstance(line, str))


def rank_trial(node: str, rank: int, process: TriedProcess) -> RankTrial:
    """What one rank told of the collective."""
    found: dict[str, Any] = {}
    for record in _parse_records(process.out):
        stage = record.get("stage")
        if stage == "error":
            found["error"] = _error_text(record)
        elif isinstance(stage, str) and stage in STAGES:
            found.update(_of_stage(stage, record))
    if "error" not in found and process.err and found.get("stage") != "measured":
        found["error"] = process.err[-1][:MAX_TEXT]
    return RankTrial(node=node, rank=rank, outcome=process.outcome, **found)


def _parse_records(lines: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _error_text(record: Mapping[str, Any]) -> str:
    """Its message, and the library's own last word if there is one."""
    log = record.get("log")
    said = [line for line in log if isinstance(line, str)] if isinstance(log, list) else []
    words = [str(record.get("message"))[:MAX_TEXT], *(line[:MAX_TEXT] for line in said[-1:])]
    return ": ".join(words)


def _of_stage(stage: str, record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "stage", stage
    for name in ("network", "detail"):
        if isinstance(record.get(name), str):
            yield name, record[name][:MAX_TEXT]
    if stage == "imported":
        yield "versions", f"torch {record.get('torch')} nccl {record.get('nccl')}"[:MAX_TEXT]
    if stage == "measured":
        yield "size", int(_as_number(record.get("bytes")))
        yield "seconds", _as_number(record.get("took"))


def _as_number(value: object) -> float:
    return max(0.0, as_float(value) or 0.0)
