"""Bounds of what nodes may answer, as annotations of the fields that take it. Data only.

A field is declared once, in the core, with its type and bounds: ``parsing.replies.records`` reads
answers by them, and the codec, which reads what we wrote ourselves, looks at the types alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

MAX_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Between:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Chars:
    """A text of at most ``most`` characters; ``pattern``: a regular expression for all of it.

    Characters that cannot be printed become ``?``.
    """

    most: int
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """At most ``most`` items. ``distinct``: each once, in ascending order, whatever came."""

    most: int
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class IpAddress:
    """An IPv4 or IPv6 address; the zone behind ``%`` is dropped."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The coordinator's own field: an answer cannot set it."""


Text = Annotated[str, Chars(256)]
Note = Annotated[str, Chars(4096)]
Name = Annotated[str, Chars(64, r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")]
Address = Annotated[str, IpAddress()]
CpuList = Annotated[str, Chars(1024, r"[0-9,-]*")]
PciAddress = Annotated[str, Chars(24, r"[0-9A-Fa-f:.]*")]
Bytes = Annotated[int, Between(0, MAX_BYTES)]
Pid = Annotated[int, Between(1, 1 << 31)]
Count = Annotated[int, Between(0, 1 << 64)]
Small = Annotated[int, Between(0, 1_000_000)]
Signed = Annotated[int, Between(-1000, 1_000_000)]
Watts = Annotated[float, Between(0, 100_000)]
Variables = Annotated[Mapping[Text, Text], Items(128)]
