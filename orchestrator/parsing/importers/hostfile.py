"""MPI and DeepSpeed hostfiles: ``host slots=8``, ``host:8``, ``host``; ``#`` begins a comment."""

from __future__ import annotations

from orchestrator.parsing.importers.foreign_nodes import Collector, Imported, lines_of


def parse_hostfile(text: str, source: str) -> Imported:
    """Slots become GPUs; as in Open MPI, the slots of a host that is named twice add up.

    Raises :class:`UsageError` when no host is found.
    """
    found = Collector(source)
    slots: dict[str, int] = {}
    for line, content in lines_of(text):
        host, *words = content.split()
        host, _, after_colon = host.partition(":") if host.count(":") == 1 else (host, "", "")
        count = _number(f"slots={after_colon}") if after_colon else None
        if after_colon and count is None:
            found.warn(f"{after_colon!r} after the colon is not a number of slots", line)
        for word in words:
            if word.startswith("slots=") and (number := _number(word)) is not None:
                count = number
            elif not word.startswith(("max_slots=", "max-slots=")):
                found.warn(f"{word[:80]!r} is not understood", line)
        if count is not None:
            slots[host] = slots.get(host, 0) + count
        gpus = found.gpus(slots[host], line) if host in slots else None
        found.add(host, line, fields={"gpus": gpus})
    return found.imported()


def _number(word: str) -> int | None:
    digits = word.partition("=")[2]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 7 else None
