"""One question, one answer, no agent: the whole start of a glance is what it asks for.

The answer is written as JSON by hand; what a program of the standard library's own json package
would import takes longer than finding all facts of a node without GPUs.
"""

from __future__ import annotations

import os
from _json import encode_basestring_ascii as quoted

from orchestrator.node_agent.facts.gather import gather_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_DEPTH = 16


def answer_probe(root: str, request: Mapping[str, Any]) -> None:
    """Answers the probe ``request`` in one line on standard output."""
    try:
        text = strict_json(gather_facts(root, request))
    except Exception as error:  # noqa: BLE001 - the one who asks must hear of it
        text = strict_json({"error": f"{type(error).__name__}: {error}"})
    data = memoryview(text.encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]
    os._exit(0)  # there is nothing to be tidied up


def strict_json(value: object, depth: int = MAX_DEPTH) -> str:
    """Plain data as JSON; numbers that JSON lacks are null. Raises ``TypeError`` for the rest."""
    if isinstance(value, str):
        return str(quoted(value))
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value) if value - value == 0 else "null"
    if depth and isinstance(value, dict):
        items = (f"{quoted(key)}:{strict_json(item, depth - 1)}" for key, item in value.items())
        return "{" + ",".join(items) + "}"
    if depth and isinstance(value, (list, tuple)):
        return "[" + ",".join(strict_json(item, depth - 1) for item in value) + "]"
    raise TypeError(f"cannot write {type(value).__name__}")
