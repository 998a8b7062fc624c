"""Records of a node's supervisor made into events. The node is not trusted: shapes and bounds
are checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.core.base.outcome import Exited, Lost, Outcome, Signalled
from orchestrator.core.model.scheduled_node import ScheduledNode
from orchestrator.core.run.events import (
    Event,
    Halting,
    NodeConcluded,
    ProcessExited,
    RankExited,
    RankStarted,
    Swept,
)
from orchestrator.parsing.replies.record_lines import as_float

MAX_TEXT = 500
MAX_SURVIVORS = 32
MAX_TIME = 1e11
MAX_COUNT = 1 << 20
MAX_PATH = 4096
MAX_VARIABLES, MAX_VALUE = 512, 32 * 1024
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SCHEDULED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class BadRecord(ValueError):
    """The record does not have the shape that the supervisor writes."""


def parse_record(node: str, record: Mapping[str, Any], clock_offset_s: float) -> Event | None:
    """The event that ``record`` tells, or None when it tells nothing that decisions need.

    ``clock_offset_s`` (node's wall clock minus ours) is taken off the record's time.
    """
    match record.get("event"):
        case "rank-started":
            return RankStarted(
                node=node, rank=_read_int(record, "rank"), pid=_read_int(record, "pid")
            )
        case "rank-exited":
            return RankExited(
                node=node, rank=_read_int(record, "rank"), **_parse_ending(record, clock_offset_s)
            )
        case "process-exited":
            label = _plain_text(record.get("label"))
            return ProcessExited(node=node, label=label, **_parse_ending(record, clock_offset_s))
        case "stopping":
            at = _read_time(record) - clock_offset_s
            return Halting(node=node, why=_plain_text(record.get("why", "")), at=at)
        case "concluded":
            return NodeConcluded(
                node=node,
                clean=record.get("clean") is True,
                survivors=parse_survivors(record.get("survivors")),
                why=_plain_text(record.get("why", "")),
            )
        case _:
            return None


def parse_outcome(value: object) -> Outcome:
    """``{"exited": code}``, ``{"signalled": number}`` or ``{"lost": why}``. Raises
    ``BadRecord``.
    """
    match value:
        case {"exited": int(code)} if 0 <= code <= 255:
            return Exited(code)
        case {"signalled": int(number)} if 1 <= number <= 64:
            return Signalled(number)
        case {"lost": str(why)}:
            return Lost(why[:MAX_TEXT])
        case _:
            raise BadRecord(f"not an outcome: {str(value)[:80]}")


def _parse_ending(record: Mapping[str, Any], clock_offset_s: float) -> dict[str, Any]:
    return {
        "outcome": parse_outcome(record.get("outcome")),
        "at": _read_time(record) - clock_offset_s,
        "last_line": _plain_text(record.get("last_line", "")),
        "by_us": record.get("by_us") is True,
    }


def _read_time(record: Mapping[str, Any]) -> float:
    at = as_float(record.get("t"))
    if at is None:
        raise BadRecord("a record has no time")
    return at


def _read_int(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if type(value) is not int or value < 0:
        raise BadRecord(f"{name} is not a whole number")
    return value


def _plain_text(value: object) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The path of the ranks' interpreter, versions of modules, and what activating it would set."""

    path: str
    modules: Mapping[str, str]
    environment: Mapping[str, str]


def parse_interpreter(fields: Mapping[str, Any]) -> Interpreter:
    """What a node told of the interpreter of its ranks. Raises ``BadRecord``."""
    path, modules = fields.get("interpreter"), fields.get("modules")
    environment = fields.get("environment", {})
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH or not isinstance(modules, dict):
        raise BadRecord("not an interpreter")
    if not isinstance(environment, dict) or len(environment) > MAX_VARIABLES:
        raise BadRecord("not an environment")
    versions = {str(name)[:128]: str(version)[:64] for name, version in modules.items()}
    variables = {name: value for name, value in environment.items() if _is_variable(name, value)}
    return Interpreter(path=path, modules=versions, environment=variables)


def _is_variable(name: object, value: object) -> bool:
    named = isinstance(name, str) and VARIABLE.fullmatch(name) is not None
    return named and isinstance(value, str) and len(value) <= MAX_VALUE and "\0" not in value


def parse_scheduled_node(fields: Mapping[str, Any]) -> ScheduledNode:
    """What a scheduler told of a node. Raises ``BadRecord``."""
    name, counts = fields.get("name"), [fields.get("cpus"), fields.get("gpus")]
    known = isinstance(name, str) and SCHEDULED_NAME.fullmatch(name)
    if not known or not all(type(n) is int and 0 <= n <= MAX_COUNT for n in counts):
        raise BadRecord("not a node of a scheduler")
    return ScheduledNode(
        name=str(name), cpus=_read_int(fields, "cpus"), gpus=_read_int(fields, "gpus")
    )


def parse_survivors(value: object) -> tuple[str, ...]:
    """``pid comm (state)`` for each process that is still there; and where it waits, if told."""
    if not isinstance(value, list):
        return ()
    found = [item for item in value[:MAX_SURVIVORS] if isinstance(item, dict)]
    return tuple(map(_describe_survivor, found))


def _describe_survivor(process: Mapping[str, Any]) -> str:
    waits = process.get("wchan")
    state = str(process.get("state"))[:2] + (f" in {waits[:64]}" if isinstance(waits, str) else "")
    return f"{str(process.get('pid'))[:10]} {str(process.get('comm'))[:32]} ({state})"


def parse_swept(node: str, fields: Mapping[str, Any]) -> Swept:
    """What a sweep found. Anything but a plain yes is a no."""
    killed, drained = fields.get("killed"), fields.get("gpu_drained")
    return Swept(
        node=node,
        clean=fields.get("clean") is True,
        killed=len(killed) if isinstance(killed, list) else 0,
        survivors=parse_survivors(fields.get("survivors")),
        gpu_drained=drained if isinstance(drained, bool) else None,
    )


def parse_holder(fields: Mapping[str, Any]) -> str:
    """Who holds a lock, and since when, as a phrase: ``run x of a@b since 12:00:00 (gpu-0)``."""
    holder = fields.get("holder")
    told = holder if isinstance(holder, dict) else {}
    run, owner = (
        _plain_text(told.get("run"))[:128],
        _plain_text(told.get("coordinator") or told.get("user"))[:128],
    )
    since, lock = told.get("since"), _plain_text(fields.get("lock"))[:64]
    words = [f"run {run}" if run else "another run", f"of {owner}" if owner else ""]
    if isinstance(since, int | float) and not isinstance(since, bool) and 0 < since < MAX_TIME:
        words.append(f"since {datetime.fromtimestamp(since).astimezone():%Y-%m-%d %H:%M:%S}")
    return " ".join(word for word in words if word) + (f" ({lock})" if lock else "")
