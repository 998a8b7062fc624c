"""A host as Ansible writes it: ``name:port``, ``[address]:port``, ``web[01:10:2].lan``."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from orchestrator.core.base.nodeset import MAX_NAMES, too_many

MAX_DIGITS = 9
MAX_PORT = 65_535

_BRACKETED = re.compile(r"\[(.+)\]:([0-9]+)")
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)")
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_LETTERS = string.ascii_letters


class NameProblem(ValueError):
    """Text that is no host; the message repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The hosts that one pattern stands for, and the port behind it."""

    hosts: tuple[str, ...]
    port: int | None = None


def expand_pattern(text: str) -> Pattern:
    """Read ``text`` as ansible-core does. Raises :class:`NameProblem`."""
    pattern, port = text, None
    match = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    # Several brackets are ranges, not an address: [1:2]x[1:2]:22 ends in a port all the same.
    if (
        match is not None
        and match[0].startswith("[")
        and "[" in match[1]
        and match.re is _BRACKETED
    ):
        match = _WITH_PORT.fullmatch(text)
    if match is not None:
        pattern, port = match[1], _parse_port(match[2])
    if text.endswith(":") and not text.endswith("::"):
        raise NameProblem("a colon at the end, where a port is expected")
    return Pattern(tuple(_expand_pattern(pattern)), port)


def _parse_port(digits: str) -> int:
    if len(digits) > MAX_DIGITS or not 0 < int(digits) <= MAX_PORT:
        raise NameProblem(f"a port is a number from 1 to {MAX_PORT}")
    return int(digits)


def _expand_pattern(pattern: str) -> list[str]:
    names = [""]
    at = 0
    for match in _RANGE.finditer(pattern):
        values = _expand_range(match[1])
        if len(names) * len(values) > MAX_NAMES:
            raise NameProblem(too_many(MAX_NAMES))
        literal = pattern[at : match.start()]
        names = [f"{name}{literal}{value}" for name in names for value in values]
        at = match.end()
    rest = pattern[at:]
    if "[" in rest or "]" in rest:
        raise NameProblem("a bracket without its partner")
    return [name + rest for name in names]


def _expand_range(content: str) -> list[str]:
    bounds = content.split(":")
    if len(bounds) not in (2, 3):
        raise NameProblem("a range is like [1:9] or [1:9:2]")
    low, high = bounds[0] or "0", bounds[1]
    step = bounds[2] if len(bounds) == 3 else "1"
    if not high:
        raise NameProblem("a range needs its last value")
    if not _is_number(step) or int(step) < 1:
        raise NameProblem("the step of a range is a number from 1")
    if low in _LETTERS and high in _LETTERS and len(low) == len(high) == 1:
        first, last = _LETTERS.index(low), _LETTERS.index(high)
        values = [_LETTERS[at] for at in range(first, last + 1, int(step))]
    else:
        values = _number_range(low, high, int(step))
    if not values:
        raise NameProblem("a range runs backwards")
    return values


def _number_range(low: str, high: str, step: int) -> list[str]:
    if not _is_number(low) or not _is_number(high):
        raise NameProblem("the ends of a range are two numbers or two letters")
    width = len(low) if low.startswith("0") and len(low) > 1 else 1
    if width > 1 and len(high) != width:
        raise NameProblem("both ends of a padded range need the same width")
    numbers = range(int(low), int(high) + 1, step)
    if len(numbers) > MAX_NAMES:
        raise NameProblem(too_many(MAX_NAMES))
    return [f"{number:0{width}d}" for number in numbers]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
