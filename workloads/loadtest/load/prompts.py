"""What is asked: lines of files, or words from a seed. Everything is read before load is sent."""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import IO, Any

from orchestrate_serving.words import made_up_word

from ..base.job import Ask

# All prompts are held in memory, in every sending process.
MAX_LINES = 200_000
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_ARRAY_BYTES = 1024 * 1024 * 1024
MAX_NAMED = 5
ASKERS = frozenset({"human", "user"})
GENERATED = 64
MAX_WORDS = 100_000
MAX_BLANK = 1024


class InputError(ValueError):
    """A file that no load can be made of; nothing was sent."""

    id = "OR-LOAD-007"


def read_prompts(path: Path) -> list[Ask]:
    """A JSONL file of ``{"prompt": text}`` or ``{"messages": [...]}``, ``max_tokens`` optional, or
    of ShareGPT's ``{"conversations": [...]}``, whose first question is asked; that one may also be
    a single array, as it is published.

    Raises :class:`InputError` with file and line.
    """
    return [_ask(entry, where) for where, entry in _lines(path)]


def _ask(entry: dict[str, Any], where: str) -> Ask:
    text, messages = entry.get("prompt"), entry.get("messages")
    tokens = entry.get("max_tokens", 0)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise InputError(f"{where}: max_tokens is {tokens!r}, not a number of tokens")
    if isinstance(text, str) and text:
        return Ask(text=text, output_tokens=tokens)
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        return Ask(messages=tuple(messages), output_tokens=tokens)
    if question := _first_question(entry.get("conversations")):
        return Ask(text=question, output_tokens=tokens)
    raise InputError(
        f"{where}: neither {{prompt}} nor {{messages: [{{role, content}}, ...]}} nor ShareGPT's "
        f"{{conversations}} with a question, but {_named(entry)}"
    )


def _named(entry: dict[str, Any]) -> str:
    names = ", ".join(repr(name[:40]) for name in list(entry)[:MAX_NAMED])
    return f"the keys {names}" if names else "no key"


def _first_question(turns: Any) -> str:
    """What the human says first; empty = nothing. A few published conversations begin with the
    other side.
    """
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("from") in ASKERS:
            text = turn.get("value")
            return text if isinstance(text, str) else ""
    return ""


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("role"), str) and "content" in item


def read_trace(path: Path, unit: str, seed: int) -> tuple[list[float], list[Ask]]:
    """(times in seconds from the first, prompts of the lengths that the lines name).

    The format of Mooncake's traces: ``{"timestamp": 27482, "input_length": 6955,
    "output_length": 52}``; a generated word stands for a token. Raises :class:`InputError`.
    """
    scale = {"s": 1.0, "ms": 1e-3}[unit]
    requests = sorted(
        (
            (
                _amount(entry, "timestamp", where) * scale,
                _whole(entry, "input_length", where),
                _whole(entry, "output_length", where),
            )
            for where, entry in _lines(path)
        ),
        key=lambda request: request[0],
    )
    first = requests[0][0]
    words = Random(f"trace-{seed}")
    asks = [Ask(text=_text(words, long), output_tokens=out) for _, long, out in requests]
    return [at_s - first for at_s, _, _ in requests], asks


def _amount(entry: dict[str, Any], key: str, where: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"{where}: {key} is {value!r}, not a number from 0 on")
    return float(value)


def _whole(entry: dict[str, Any], key: str, where: str) -> int:
    value = _amount(entry, key, where)
    if not 1 <= value <= MAX_WORDS:
        raise InputError(f"{where}: {key} is {value:g}, not 1 to {MAX_WORDS}")
    return int(value)


def generate_prompts(words: int, seed: int) -> list[Ask]:
    """Prompts of ``words`` made-up words, the same on every machine."""
    random = Random(f"prompts-{seed}")
    return [Ask(text=_text(random, words)) for _ in range(GENERATED)]


def _text(random: Random, words: int) -> str:
    return " ".join(made_up_word(random) for _ in range(words))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every line that is not blank. Raises :class:`InputError`."""
    seen = False
    try:
        with path.open("rb") as file:
            start = len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0
            file.seek(start)
            array = file.read(MAX_BLANK).lstrip()[:1] == b"["
            file.seek(start)
            for number, where, entry in _entries(file, str(path), array=array):
                if number > MAX_LINES:
                    raise InputError(f"{path}: more than {MAX_LINES} lines")
                seen = True
                yield where, entry
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if not seen:
        raise InputError(f"{path}: no line with a request")


def _entries(
    file: IO[bytes], name: str, *, array: bool
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(number from 1 on, place, object). Raises ``OSError``, :class:`InputError`."""
    if array:
        yield from _array_entries(file, name)
        return
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
        if len(line) >= MAX_LINE_BYTES:
            raise InputError(f"{name}:{number}: longer than {MAX_LINE_BYTES} bytes")
        if line.strip():
            yield number, f"{name}:{number}", _object(line, f"{name}:{number}")


def _array_entries(file: IO[bytes], name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Of one array. Conversations in which nobody asks anything are left out."""
    content = file.read(MAX_ARRAY_BYTES + 1)
    if len(content) > MAX_ARRAY_BYTES:
        raise InputError(f"{name}: an array of more than {MAX_ARRAY_BYTES} bytes")
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON: {error}") from None
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, dict):
            raise InputError(f"{name}: entry {number} is no object, but {type(entry).__name__}")
        if "conversations" not in entry or _first_question(entry["conversations"]):
            yield number, f"{name}: entry {number}", entry


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise InputError(f"{where}: a JSON object is needed, found {type(entry).__name__}")
    return entry
