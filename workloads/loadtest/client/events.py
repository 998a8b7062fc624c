"""What one event of a stream says, and whether the next one says the same.

A server writes each token into the same object. Once an event was parsed, the bytes around its text
are known; another with the same bytes around a plain text is the same but for the text, and need
not be parsed to know that. What is not exactly so is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# The inside of a JSON string that stands for itself, whatever it is: no quote, escape or control.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')
_PROBE = "\x7fprobe\x7f"
# An event ends so, and begins with `data: `.
_START, _END = b"data: ", b"\n\n"

Around = tuple[bytes, bytes]
Decode = Callable[[str], tuple[Any, int]]
is_plain = _PLAIN.fullmatch


def around_text(data: bytes, entry: dict[str, Any], decode: Decode) -> Around | None:
    """What comes before and after the text of an event ``data``, whose JSON is ``entry``; None if
    it has not one text that stands there as it is.

    Proven by decoding it once more, with another text in this place.
    """
    text = _set_text(entry, "")
    if not text:
        return None
    quoted = b'"%b"' % text.encode(errors="replace")
    place = data.find(quoted)
    if place < 0 or b"\n" in data or b"\r" in data:  # of several lines: another on the wire
        return None
    head, tail = data[: place + 1], data[place + len(quoted) - 1 :]
    try:
        other, _ = decode((head + _PROBE.encode() + tail).decode())
    except ValueError:
        return None
    if not isinstance(other, dict) or _set_text(other, "") != _PROBE or other != entry:
        return None
    return _START + head, tail + _END


def _set_text(entry: dict[str, Any], text: str) -> str:
    """Replaces the text of an event of one choice; the text that it had."""
    choices = entry.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return ""
    delta = choices[0].get("delta")
    holder, name = (delta, "content") if isinstance(delta, dict) else (choices[0], "text")
    before = holder.get(name)
    if not isinstance(before, str):
        return ""
    holder[name] = text
    return before


def has_content(choice: dict[str, object]) -> bool:
    """Whether the choice brings output: text, reasoning or calls; not just a role."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        if delta.get("content"):
            return True
        return bool(
            delta.get("reasoning_content")
            or delta.get("reasoning")
            or delta.get("tool_calls")
            or delta.get("function_call")
            or delta.get("refusal")
        )
    return bool(choice.get("text"))


def is_blank(choice: dict[str, object]) -> bool:
    """A token without a text, as weights at random bring: neither a role nor an end."""
    if choice.get("finish_reason"):
        return False
    delta = choice.get("delta")
    return "role" not in delta if isinstance(delta, dict) else "text" in choice


def as_count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
