"""What is asked: lines of a data set, or prompts generated from their index and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrate_serving.words import generate_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Text that is continued as it is, or the messages of a chat. ``expected``: the right answer,
    by which it is scored; empty = it is not known.
    """

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    expected: str = ""


def parse_prompt(data: Any) -> Prompt:
    """A line of a data set. Raises `ValueError` saying what is wrong with it."""
    line = data if isinstance(data, dict) else {}
    text, messages = line.get("prompt"), line.get("messages")
    expected = line.get("expected", "")
    if not isinstance(expected, str):
        raise ValueError(f"expected is {type(expected).__name__}, not the text of an answer")  # noqa: TRY004
    if isinstance(text, str) and text:
        return Prompt(text=text, expected=expected)
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        return Prompt(messages=tuple(messages), expected=expected)
    raise ValueError("neither {prompt: text} nor {messages: [{role, content}, ...]}")


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("role"), str)


def generate_prompt(index: int, *, seed: int, words: int) -> Prompt:
    """The prompt with this index: from a few words to `words`, the same on every machine."""
    return Prompt(text=generate_text(index, seed=seed, words=words))
