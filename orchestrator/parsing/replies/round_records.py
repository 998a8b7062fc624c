"""What nodes that train by themselves tell the coordinator, one JSON object a line. Nothing is
trusted: a line that makes no sense is described, and taken for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.core.sharing.exchange_choice import NodeTrial
from orchestrator.core.sharing.rounds import (
    Ended,
    Exchanged,
    Joined,
    Offered,
    Pace,
    Part,
    RoundTerms,
    StepTold,
)
from orchestrator.parsing.replies.record_lines import as_float, as_int, parse_object, unknown_type

COMPRESSIONS = ("int8", "bf16", "none")
MAX_LINE_BYTES = 1024 * 1024
MAX_VALUES = 10**11
MAX_COUNT = 10**12
MAX_STEPS_TOLD = 10_000
MAX_FILE_BYTES = 8 * 1024**3
MAX_SAMPLE_BYTES = 64 * 1024**2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Told = NodeTrial | Joined | Offered | Part | Pace | Ended


class _Bad(ValueError):
    """What is wrong with a record."""


def parse_told(line: bytes) -> Told | str:
    """What a node says, or what is wrong with it."""
    record = parse_object(line, MAX_LINE_BYTES)
    if isinstance(record, str):
        return record
    try:
        return _parse_record(record)
    except _Bad as error:
        return str(error)


def _parse_record(record: Mapping[str, Any]) -> Told:
    match record.get("type"):
        case "trial":
            return _parse_trial(record)
        case "join":
            step = _read_count(record, "step")
            return Joined(terms=_parse_terms(record), step=step, sha256=_read_digest(record))
        case "parameters":
            return _parse_offered(record)
        case "part":
            return _parse_part(record)
        case "pace":
            return _parse_pace(record)
        case "end":
            return Ended(sha256=_read_digest(record))
        case other:
            raise _Bad(unknown_type(other))


def _parse_terms(record: Mapping[str, Any]) -> RoundTerms:
    compression = record.get("compression")
    if compression not in COMPRESSIONS:
        raise _Bad(f"unknown compression {str(compression)[:40]!r}")
    exchanged = record.get("exchange", Exchanged.CHANGES)
    if exchanged not in tuple(Exchanged):
        raise _Bad(f"unknown exchange {str(exchanged)[:40]!r}")
    return RoundTerms(
        training=_read_digest(record, "training"),
        steps=_read_count(record, "steps", least=1),
        round_steps=_read_count(record, "round_steps", least=1, most=MAX_STEPS_TOLD),
        rows=_read_count(record, "rows", least=1),
        values=_read_count(record, "values", least=1, most=MAX_VALUES),
        compression=compression,
        learning_rate=_read_number(record, "learning_rate", 0.0, 10.0),
        momentum=_read_number(record, "momentum", 0.0, 0.999),
        exchanged=Exchanged(exchanged),
    )


def _parse_trial(record: Mapping[str, Any]) -> NodeTrial:
    return NodeTrial(
        step_s=_read_number(record, "step_s", 0.0, 1e6),
        steps=_read_count(record, "steps"),
        values=_read_count(record, "values", least=1, most=MAX_VALUES),
        file=_parse_offered(record, most=MAX_SAMPLE_BYTES),
    )


def _parse_part(record: Mapping[str, Any]) -> Part:
    told = record.get("curve")
    if not isinstance(told, list) or not 0 < len(told) <= MAX_STEPS_TOLD:
        raise _Bad("a part without its steps")
    return Part(
        round=_read_count(record, "round", least=1),
        rows=_read_count(record, "rows", least=1),
        pace=_parse_pace(record),
        file=_parse_offered(record),
        curve=tuple(map(_parse_step, told)),
    )


def _parse_pace(record: Mapping[str, Any]) -> Pace:
    given = record.get("pace")
    if not isinstance(given, dict):
        raise _Bad("no 'pace'")
    return Pace(
        rows=_read_count(given, "rows", least=1), seconds=_read_number(given, "seconds", 1e-6, 1e9)
    )


def _parse_step(told: Any) -> StepTold:
    if not isinstance(told, dict):
        raise _Bad("a step that is not an object")
    return StepTold(
        step=_read_count(told, "step", least=1),
        loss=_read_number(told, "loss", -1e9, 1e9),
        targets=_read_count(told, "targets", least=1),
        tokens=_read_count(told, "tokens", least=1),
        seconds=_read_number(told, "seconds", 0.0, 1e9),
    )


def _parse_offered(record: Mapping[str, Any], *, most: int = MAX_FILE_BYTES) -> Offered:
    name = record.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Bad(f"not the name of a file to offer: {str(name)[:80]!r}")
    size = _read_count(record, "bytes", least=1, most=most)
    return Offered(name=name, bytes=size, sha256=_read_digest(record))


def _read_digest(record: Mapping[str, Any], name: str = "sha256") -> str:
    value = record.get(name)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _Bad(f"{name!r} is no digest")
    return value


def _read_count(
    record: Mapping[str, Any], name: str, *, least: int = 0, most: int = MAX_COUNT
) -> int:
    value = as_int(record.get(name), least, most)
    if value is None:
        raise _Bad(f"{name!r} is no whole number from {least} to {most}")
    return value


def _read_number(record: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = as_float(record.get(name))
    if value is None:
        raise _Bad(f"{name!r} is no number")
    if not least <= value <= most:
        raise _Bad(f"{name!r} is not from {least:g} to {most:g}")
    return value
