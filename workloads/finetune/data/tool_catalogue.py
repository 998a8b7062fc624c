"""The tools of the generated data set, read from tools.json: arguments, wordings, value pools.

Each tool keeps wordings back for the held-out split, and each argument of each tool keeps back a
quarter of its values: no training conversation gives that argument of that tool such a value. A
model that only memorises therefore fails the evaluation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

CATALOGUE_PATH = Path(__file__).with_name("tools.json")

JsonValue = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A string argument whose value is one of a pool."""

    pool: tuple[str, ...]
    offset: int

    json_type = "string"

    def draw(self, random: Random, *, held_out: bool) -> tuple[JsonValue, str]:
        """Return a value and the way a request spells it."""
        indices = _split(range(len(self.pool)), self.offset, held_out=held_out)
        word = self.pool[random.choice(indices)]
        return word, word


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """An integer argument in [low, high]."""

    low: int
    high: int
    offset: int

    json_type = "integer"

    def draw(self, random: Random, *, held_out: bool) -> tuple[JsonValue, str]:
        """Return a value and the way a request spells it."""
        candidates = range(self.low, self.high + 1)
        value = random.choice(_split(candidates, self.offset, held_out=held_out))
        return value, str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenths:
    """A number argument with one decimal; the endings .4 and .8 are held out."""

    low: int
    high: int

    json_type = "number"

    def draw(self, random: Random, *, held_out: bool) -> tuple[JsonValue, str]:
        """Return a value and the way a request spells it."""
        ending = random.choice("48" if held_out else "1235679")
        spelled = f"{random.randint(self.low, self.high)}.{ending}"
        return float(spelled), spelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A boolean argument that a request spells as one of two phrases, in both splits."""

    no: str
    yes: str

    json_type = "boolean"

    def draw(self, random: Random, *, held_out: bool) -> tuple[JsonValue, str]:
        """Return a value and the way a request spells it."""
        del held_out  # there are only two values, and both splits need both
        value = random.random() < 0.5
        return value, self.yes if value else self.no


ArgumentType = Words | Whole | Tenths | Flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One callable tool; wordings name each argument in braces."""

    name: str
    description: str
    arguments: dict[str, ArgumentType]
    wordings: tuple[str, ...]
    held_out_wordings: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """The tool in the JSON form that chat templates expect."""
        properties = {name: {"type": kind.json_type} for name, kind in self.arguments.items()}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All tools and the pools that their string arguments draw from."""

    tools: tuple[Tool, ...]
    pools: dict[str, tuple[str, ...]]


def load_catalogue(path: Path = CATALOGUE_PATH) -> Catalogue:
    """Read the catalogue that ships with the workload."""
    document = json.loads(path.read_text(encoding="utf-8"))
    pools = {name: tuple(words.split()) for name, words in document["pools"].items()}
    tools = tuple(_tool(entry, pools, index) for index, entry in enumerate(document["tools"]))
    return Catalogue(tools=tools, pools=pools)


def _split(candidates: range, offset: int, *, held_out: bool) -> list[int]:
    """Every fourth candidate is held out; the offset makes that differ from tool to tool."""
    return [n for n in candidates if ((n + offset) % 4 == 0) == held_out]


def _tool(entry: dict[str, Any], pools: dict[str, tuple[str, ...]], index: int) -> Tool:
    arguments = {
        name: _argument(kind, pools, offset=index) for name, kind in entry["arguments"].items()
    }
    return Tool(
        name=entry["name"],
        description=entry["description"],
        arguments=arguments,
        wordings=tuple(entry["wordings"]),
        held_out_wordings=tuple(entry["held_out_wordings"]),
    )


def _argument(
    kind: dict[str, Any], pools: dict[str, tuple[str, ...]], *, offset: int
) -> ArgumentType:
    ((form, value),) = kind.items()
    if form == "pool":
        return Words(pool=pools[value], offset=offset)
    if form == "integer":
        return Whole(low=value[0], high=value[1], offset=offset)
    if form == "number":
        return Tenths(low=value[0], high=value[1])
    if form == "boolean":
        return Flag(no=value[0], yes=value[1])
    raise ValueError(f"{CATALOGUE_PATH.name}: unknown argument form {form!r}")
