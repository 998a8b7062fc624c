"""What one line of a hostfile says, by the rule of each tool that reads such files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.parsing.importers.foreign_nodes import MAX_GPUS
from orchestrator.parsing.importers.text_lines import split_lines

MAX_PORT = 65_535

_SLOTS = frozenset({"slots", "cpu", "count"})
_MAX_SLOTS = frozenset({"max_slots", "max-slots", "slots_max", "slots-max"})
_USER = frozenset({"username", "user-name", "user_name"})
_BRACKETED = re.compile(r"((?:[^@\[\]]+@)?)\[([^\[\]]+)\](?::([0-9]{1,6}))?")
_COUNTED = re.compile(r"[^:\[\]]+:[0-9]+")
_DEEPSPEED = re.compile(r"(\S+)\s+slots=([0-9]{1,9})(?:\s+#.*|\s*#.*)?")
_BLOCK = re.compile(r"/\*.*?\*/", re.DOTALL)
_REST = re.compile(r"(#|//).*")


class LineProblem(ValueError):
    """A line that is no host; the message repeats nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostfileEntry:
    """One line. ``slots`` None = the line gives no number; ``most`` is Open MPI's ``max_slots``."""

    host: str
    line: int
    slots: int | None = None
    most: int | None = None
    user: str | None = None
    port: int | None = None


def lines_openmpi(text: str) -> Iterator[tuple[int, str]]:
    """Lines without ``#``, ``//`` and ``/* */`` comments."""
    bare = _BLOCK.sub(lambda match: "\n" * match[0].count("\n") or " ", text)
    for number, line in enumerate(split_lines(bare), start=1):
        content = _REST.sub("", line).strip()
        if content:
            yield number, content


def lines_mpich(text: str) -> Iterator[tuple[int, str]]:
    """Lines without ``#`` comments, wherever these begin."""
    for number, line in enumerate(split_lines(text), start=1):
        content = line.partition("#")[0].strip()
        if content:
            yield number, content


def lines_deepspeed(text: str) -> Iterator[tuple[int, str]]:
    """Lines that do not begin with ``#``."""
    for number, line in enumerate(split_lines(text), start=1):
        content = line.strip()
        if content and not content.startswith("#"):
            yield number, content


def read_openmpi(content: str, line: int) -> HostfileEntry:
    """``host slots = 4 max_slots=8 username=bob``. Raises :class:`LineProblem`."""
    host, *words = re.sub(r"\s*=\s*", "=", content).split()
    if _COUNTED.fullmatch(host):
        raise LineProblem("host:N is the form of --dialect mpich; a port is written [host]:N")
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        kind = _key_kind(key)
        if not equals or not kind:
            raise LineProblem("slots=N, max_slots=N or username=NAME is expected behind a host")
        if kind in values:
            raise LineProblem(f"{kind} is given twice")
        values[kind] = value
    slots, most = (
        _parse_number(values[kind]) if kind in values else None for kind in ("slots", "max")
    )
    if slots is not None and most is not None and most < slots:
        raise LineProblem("max_slots is less than slots")
    return _make_entry(host, line, slots=slots, most=most, user=values.get("user"))


def _key_kind(key: str) -> str:
    for kind, names in (("slots", _SLOTS), ("max", _MAX_SLOTS), ("user", _USER)):
        if key in names:
            return kind
    return ""


def read_mpich(content: str, line: int) -> HostfileEntry:
    """``host:4 user=bob``. Raises :class:`LineProblem`."""
    name, *words = content.split()
    user = None
    for word in words:
        key, _, value = word.partition("=")
        if key != "user" or not value:
            raise LineProblem("host, host:N or host:N user=NAME is expected")
        user = value
    host, colon, count = ("", "", "") if name.startswith("[") else name.partition(":")
    if not colon or ":" in count:
        return _make_entry(name, line, user=user)
    slots = _parse_number(count)
    if slots > MAX_GPUS:
        raise LineProblem("host:N is N processes; a port is written [host]:N")
    if slots == 0:
        raise LineProblem("0 processes")
    return _make_entry(host, line, slots=slots, user=user)


def read_deepspeed(content: str, line: int) -> HostfileEntry:
    """``host slots=4``, and nothing else. Raises :class:`LineProblem`."""
    match = _DEEPSPEED.fullmatch(content)
    if match is None:
        raise LineProblem("host slots=N is expected")
    return _make_entry(match[1], line, slots=int(match[2]))


def _make_entry(
    name: str,
    line: int,
    *,
    slots: int | None = None,
    most: int | None = None,
    user: str | None = None,
) -> HostfileEntry:
    """``[address]:port`` is a host and ssh's port, with a user before it or without."""
    match = _BRACKETED.fullmatch(name)
    port = None
    if match is not None:
        name = f"{match[1]}{match[2]}"
        port = int(match[3]) if match[3] else None
        if port is not None and not 0 < port <= MAX_PORT:
            raise LineProblem(f"a port is a number from 1 to {MAX_PORT}")
    elif "[" in name:
        raise LineProblem(
            "a hostfile has no ranges: one host a line (cluster import reads lists of schedulers)"
        )
    return HostfileEntry(host=name, line=line, slots=slots, most=most, user=user, port=port)


def _parse_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise LineProblem("a number is expected")
    return int(text)
