"""What ``ssh`` says its configuration comes to for a node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSettings:
    """What ``ssh -G`` prints: values by lower-case keyword, in order, and its text."""

    values: Mapping[str, Sequence[str]]
    text: bytes

    def first(self, keyword: str) -> str:
        return next(iter(self.values.get(keyword, ())), "")

    def words(self, keyword: str) -> list[str]:
        return [word for value in self.values.get(keyword, ()) for word in value.split()]

    @property
    def first_server(self) -> tuple[str, ...]:
        """The server that is dialled first: a jump host, or the node's own."""
        jump = self.first("proxyjump").partition(",")[0]
        return (jump,) if jump else (self.first("hostname"), self.first("port"))


def parse_settings(text: bytes) -> SshSettings:
    """The output of ``ssh -G``: a keyword and its value on each line."""
    values: dict[str, list[str]] = {}
    for line in text.decode(errors="surrogateescape").splitlines():
        keyword, _, value = line.partition(" ")
        values.setdefault(keyword, []).append(value)
    return SshSettings(values=values, text=text)
