"""What differs between two JSON values, as lines for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

SHOWN_CHARACTERS = 60


def list_differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """One line for each value that changed, came or went: ``cluster.nodes[1].name: "a" -> "b"``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from list_differences(
                old.get(key), new.get(key), f"{path}.{key}" if path else key
            )
    elif isinstance(old, list) and isinstance(new, list):
        for index, (before, after) in enumerate(zip_longest(old, new)):
            yield from list_differences(before, after, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: {_brief_value(old)} -> {_brief_value(new)}"


def _brief_value(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
