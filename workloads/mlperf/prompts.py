"""What is asked: lines of a data set, or prompts generated from their index and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrate_serving.words import generate_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Text that is continued as it is, or the messages of a chat."""

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()


def parse_prompt(data: Any) -> Prompt:
    """A line of a data set. Raises `ValueError` saying what is wrong with it."""
    line = data if isinstance(data, dict) else {}
    text, messages = line.get("prompt"), line.get("messages")
    if isinstance(text, str) and text:
        return Prompt(text=text)
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        return Prompt(messages=tuple(messages))
    raise ValueError("neither {prompt: text} nor {messages: [{role, content}, ...]}")


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("role"), str)


def generate_prompt(index: int, *, seed: int, words: int) -> Prompt:
    """The prompt with this index: from a few words to `words`, the same on every machine."""
    return Prompt(text=generate_text(index, seed=seed, words=words))
