"""Function calls in generated text, and when two answers count as the same."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_ANSWER_CHARACTERS = 64 * 1024
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def parse_calls(answer: str) -> list[dict[str, Any]] | None:
    """Return the calls of an answer in order, or None if any of them is malformed.

    Each is {"name": str, "arguments": object}; an answer without a call gives an empty list.
    """
    calls = []
    for match in _CALL.finditer(answer[:MAX_ANSWER_CHARACTERS]):
        try:
            call = json.loads(match[1])
        except (ValueError, RecursionError):
            return None
        if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
            return None
        if not isinstance(call["name"], str) or not isinstance(call["arguments"], dict):
            return None
        calls.append(call)
    return calls


def calls_match(answer: str, expected: str) -> bool:
    """Whether both make the same calls: equal names, and arguments equal as JSON.

    The order of arguments does not matter; types do: 1, 1.0, true and "1" are four values.
    """
    found, wanted = parse_calls(answer), parse_calls(expected)
    return bool(wanted) and found is not None and _canonical(found) == _canonical(wanted)


def _canonical(calls: list[dict[str, Any]] | None) -> str:
    return json.dumps(calls, sort_keys=True)
