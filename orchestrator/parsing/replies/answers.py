"""Types of what nodes answer: bounded, printable, and never converted."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

MAX_BYTES = 1 << 60
MAX_TEXT = 256


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def address(text: str) -> str:
    return str(ipaddress.ip_address(text.partition("%")[0]))


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(printable)]
Note = Annotated[str, StringConstraints(max_length=4096), AfterValidator(printable)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Address = Annotated[str, StringConstraints(max_length=64), AfterValidator(address)]
Pid = Annotated[int, Field(ge=1, le=1 << 31)]
Count = Annotated[int, Field(ge=0, le=1 << 64)]
Small = Annotated[int, Field(ge=0, le=1_000_000)]
Signed = Annotated[int, Field(ge=-1000, le=1_000_000)]
Watts = Annotated[float, Field(ge=0, le=100_000)]
CpuList = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[0-9,-]*$")]
PciAddress = Annotated[str, StringConstraints(max_length=24, pattern=r"^[0-9A-Fa-f:.]*$")]
Variables = Annotated[dict[Text, Text], Field(max_length=128)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$")]


# No conversion between types. An agent of another version may say more: that is ignored.
STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
