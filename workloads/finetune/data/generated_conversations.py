"""Function-calling conversations made from the tool catalogue, a pure function of the seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from .tool_catalogue import Catalogue, JsonValue, Tool

OFFERED_TOOLS = 3
OPENERS = (
    "",
    "",
    "please ",
    "could you ",
    "hello, ",
    "now ",
    "today ",
    "one more thing, ",
    "well ",
    "so ",
)
CLOSERS = ("", "", "", " please", " for me", " today", " and thank you", " as usual", " my friend")
HELD_OUT_OPENERS = ("", "kindly ", "hi, ")
HELD_OUT_CLOSERS = ("", " thanks")

Conversation = dict[str, Any]


def generate_conversations(
    catalogue: Catalogue, count: int, seed: int, *, held_out: bool
) -> Iterator[Conversation]:
    """Yield `count` conversations of {tools, messages}: one request and the call that answers it.

    The held-out split draws only wordings and values that the training split never contains, and
    goes through the tools in turn so that each is tested equally often.
    """
    random = Random(f"{seed}-{'held-out' if held_out else 'train'}")
    for index in range(count):
        tool = catalogue.tools[index % len(catalogue.tools)]
        yield _conversation(catalogue, tool, random, held_out=held_out)


def _conversation(
    catalogue: Catalogue, tool: Tool, random: Random, *, held_out: bool
) -> Conversation:
    others = [other for other in catalogue.tools if other is not tool]
    offered = [tool, *random.sample(others, OFFERED_TOOLS - 1)]
    random.shuffle(offered)
    request, arguments = _request(tool, random, held_out=held_out)
    call = {"type": "function", "function": {"name": tool.name, "arguments": arguments}}
    return {
        "tools": [offer.schema() for offer in offered],
        "messages": [
            {"role": "user", "content": request},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
    }


def _request(tool: Tool, random: Random, *, held_out: bool) -> tuple[str, dict[str, JsonValue]]:
    drawn = _distinct_values(tool, random, held_out=held_out)
    opener = random.choice(HELD_OUT_OPENERS if held_out else OPENERS)
    wording = random.choice(tool.held_out_wordings if held_out else tool.wordings)
    closer = random.choice(HELD_OUT_CLOSERS if held_out else CLOSERS)
    spelled = {name: spelling for name, (_, spelling) in drawn.items()}
    return opener + wording.format(**spelled) + closer, {
        name: value for name, (value, _) in drawn.items()
    }


def _distinct_values(
    tool: Tool, random: Random, *, held_out: bool
) -> dict[str, tuple[JsonValue, str]]:
    """Draw every argument; nobody flies from one city to the same city."""
    drawn: dict[str, tuple[JsonValue, str]] = {}
    for name, kind in tool.arguments.items():
        value = kind.draw(random, held_out=held_out)
        while value in drawn.values():
            value = kind.draw(random, held_out=held_out)
        drawn[name] = value
    return drawn
