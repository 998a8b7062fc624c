"""Lines of JSON: texts, of which the likelihood counts, and questions with given answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrate_models.unusable import UnusableSettings

BUNDLED = Path(__file__).with_name("sample.jsonl")
MAX_LINE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Text:
    """All of it counts for the perplexity, but its first token."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """``choices`` continue ``question``; ``answer`` is the place of the right one."""

    line: int
    question: str
    choices: tuple[str, ...]
    answer: int


Item = Text | Question


def read_items(path: Path, most: int) -> list[Item]:
    """At most ``most`` lines, 0 = all. Raises :class:`UnusableSettings` with file and line."""
    found: list[Item] = []
    try:
        with path.open("rb") as stream:
            for number, line in _lines(stream):
                if line.strip():
                    found.append(_item(path, number, line))
                if most and len(found) == most:
                    break
    except OSError as error:
        raise UnusableSettings(f"--dataset {path}: {error.strerror}") from None
    if not found:
        raise UnusableSettings(f"--dataset {path}: no lines")
    return found


def _lines(stream: Any) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1; none is longer than what one may be, by one byte."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        yield number, line


def _item(path: Path, number: int, line: bytes) -> Item:
    def wrong(reason: str) -> UnusableSettings:
        return UnusableSettings(f"{path}:{number}: {reason}")

    if len(line) > MAX_LINE_BYTES:
        raise wrong(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        data = json.loads(line)
    except ValueError as error:
        raise wrong(f"not JSON: {error}") from None
    match data:
        case {"text": str(text)} if text:
            return Text(line=number, text=text)
        case {
            "question": str(question),
            "choices": [str(), str(), *_] as choices,
            "answer": answer,
        }:
            if isinstance(answer, bool) or not isinstance(answer, int):
                raise wrong("answer is the number of a choice, from 0 on")
            if not question or not all(isinstance(each, str) and each for each in choices):
                raise wrong("question and choices are texts that are not empty")
            if not 0 <= answer < len(choices):
                raise wrong(f"answer {answer} of {len(choices)} choices, counted from 0")
            return Question(line=number, question=question, choices=tuple(choices), answer=answer)
    raise wrong('expected {"text": ...} or {"question": ..., "choices": [...], "answer": number}')
