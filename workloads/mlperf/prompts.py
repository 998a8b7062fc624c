"""What is asked: lines of a data set, or prompts generated from their index and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

WORDS = (
    "about above across after again along always animal answer apple around autumn bird blue boat "
    "book bread bridge bright brother build candle carry castle chair city clear climb cloud coast "
    "cold colour corner country cross dance dark daughter deep door dream early earth evening fair "
    "farm father field fire fish floor flower follow forest friend garden glass gold grass green "
    "harbour heart hill horse house island journey kitchen lake lamp language large late leaf "
    "letter light listen little long market meadow moon morning mother mountain music narrow near "
    "night north ocean old open orange paper path people picture place plain quiet rain remember "
    "river road room round sail salt school sea season shore silver sister sky slow small snow "
    "song south spring square stand star stone storm story street summer sun table tall teacher "
    "thing tower town train travel tree valley village voice walk wall water weather west wheat "
    "wheel white wide wind window winter wood world write year yellow young"
).split()
OPENERS = (
    "Describe in a few sentences how these belong together:",
    "Write a short story in which all of these occur:",
    "Continue this list in the same manner:",
    "Explain to a child what these have in common:",
)


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
    random = Random(f"{seed}-{index}")
    count = random.randint(min(4, words), words)
    return Prompt(text=f"{random.choice(OPENERS)} {' '.join(random.choices(WORDS, k=count))}.")
