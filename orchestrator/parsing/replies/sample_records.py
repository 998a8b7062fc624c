"""What workers tell the coordinator of divisible work, one JSON object a line. Nothing is trusted.

A bad line is described, never raised.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Mapping
from typing import Any

from orchestrator.core.sharing.sample_protocol import (
    FirstToken,
    LeaseAck,
    Output,
    Ready,
    Record,
    SampleFailed,
    Worked,
)
from orchestrator.parsing.replies.record_lines import as_float, as_int, parse_object, unknown_type

MAX_LINE_BYTES = 2 * 1024 * 1024
MAX_TEXT = 500
MAX_NAME = 128
MAX_AMOUNTS = 16
MAX_GROUPS = 65_536
MAX_FEED = 99_999_999
MAX_SCORES = 8
SCORE = re.compile(r"[a-z][a-z0-9_]{0,39}")


def sample_line(index: int, output: Mapping[str, Any]) -> bytes:
    """The sample's line in the merged outputs, as the kit digests it. Raises ``ValueError``."""
    return json.dumps({"index": index, **output}, allow_nan=False, sort_keys=True).encode()


def merged_line(line: bytes) -> bytes:
    """The same, from what a worker told. Raises ``ValueError`` for what is no such record."""
    try:
        record = json.loads(line)
        return sample_line(record["sample"], record["output"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not the record of an output") from error


def answer_tokens(line: bytes, key: str) -> bytes:
    """The token ids under ``key`` of an accepted output, as MLPerf's accuracy logs have them:
    32-bit whole numbers, little-endian; nothing where there are none.
    """
    try:
        return array("i", json.loads(line)["output"][key]).tobytes()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return b""


def answer_scores(line: bytes, key: str) -> dict[str, float]:
    """The scores under ``key`` of an accepted output, by name, each from 0 to 1; those that are
    none are left out, and of names at most ``MAX_SCORES`` count.
    """
    try:
        found = json.loads(line)["output"].get(key) if key else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    named = found.items() if isinstance(found, dict) else ()
    scores = {
        name: float(value)
        for name, value in named
        if SCORE.fullmatch(name) and type(value) in {int, float} and 0 <= value <= 1
    }
    return dict(list(scores.items())[:MAX_SCORES])


def parse_sample_record(line: bytes, total: int, groups: int) -> Record | str:
    """A record whose numbers lie within ``total`` samples in ``groups`` groups, or what is
    wrong.
    """
    record = parse_object(line, MAX_LINE_BYTES)
    if isinstance(record, str):
        return record
    match record.get("type"):
        case "worker":
            digest, identity = record.get("configuration"), record.get("identity", "")
            if not isinstance(digest, str):
                return "a worker without configuration"
            if not isinstance(identity, str) or len(identity) > MAX_NAME:
                return "a worker with something else for an identity"
            return Ready(digest, identity, _parse_amount(record.get("per_s", 0.0)) or 0.0)
        case "took":
            return _parse_took(record, groups)
        case "first":
            begun = _parse_index(record.get("sample"), total)
            return "a first token of no sample" if begun is None else FirstToken(begun)
        case "output":
            return _parse_output(record, total)
        case "failed":
            sample, reason = _parse_index(record.get("sample"), total), record.get("reason")
            if sample is None:
                return "a failure of no sample"
            return SampleFailed(sample, str(reason)[:MAX_TEXT])
        case "worked":
            done, busy_s = (
                _parse_indices(record.get("groups"), groups),
                _parse_amount(record.get("busy")),
            )
            return "no groups or times" if done is None or busy_s is None else Worked(done, busy_s)
        case other:
            return unknown_type(other)


def _parse_took(record: Mapping[str, Any], groups: int) -> Record | str:
    feed = _parse_index(record.get("feed"), MAX_FEED + 1)
    lease, given = record.get("lease"), _parse_indices(record.get("groups"), groups)
    if not feed or given is None or not isinstance(lease, str) or len(lease) > MAX_NAME:
        return "a feed without number, lease or groups"
    return LeaseAck(feed, lease, given)


def _parse_output(record: Mapping[str, Any], total: int) -> Record | str:
    sample, seconds = (
        _parse_index(record.get("sample"), total),
        _parse_amount(record.get("seconds")),
    )
    output, amounts = record.get("output"), _parse_amounts(record.get("amounts"))
    if sample is None or seconds is None or amounts is None or not isinstance(output, dict):
        return "an output without sample, time, amounts or content"
    if "index" in output:
        return f"an output of sample {sample} with the key 'index'"
    try:
        digest = hashlib.sha256(sample_line(sample, output))
    except (ValueError, RecursionError):
        return f"an output of sample {sample} that is not plain JSON"
    if digest.hexdigest() != record.get("sha256"):
        return f"an output of sample {sample} that does not have the digest it was sent with"
    return Output(sample, digest.digest(), seconds, amounts)


def _parse_amounts(given: object) -> dict[str, float] | None:
    if not isinstance(given, dict) or len(given) > MAX_AMOUNTS:
        return None
    amounts: dict[str, float] = {}
    for name, value in given.items():
        number = _parse_amount(value)
        if number is None or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            return None
        amounts[name] = number
    return amounts


def _parse_index(value: object, end: int) -> int | None:
    return as_int(value, 0, end - 1)


def _parse_indices(value: object, end: int) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        return None
    return tuple(value) if all(_parse_index(v, end) is not None for v in value) else None


def _parse_amount(value: object) -> float | None:
    number = as_float(value)
    return number if number is not None and number >= 0 else None
