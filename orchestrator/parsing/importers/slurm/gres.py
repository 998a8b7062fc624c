"""Slurm's generic resources: how many GPUs ``gpu:h100:8(S:0-1),shard:16`` are."""

from __future__ import annotations

import re

from orchestrator.parsing.importers.foreign_nodes import MAX_GPUS, Field

_BINDING = re.compile(r"\([^)]*\)")
_COUNT = re.compile(r"([0-9]{1,6})([kKmM]?)")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FLAG = "no_consume"


def has_gpus(text: str) -> bool:
    """Whether ``text`` is a gres expression with GPUs in it."""
    return any(item.split(":")[0] == "gpu" for item in _split_items(text))


def gpus_of(text: str) -> Field | None:
    """The GPUs of a gres expression: a number, with its type where there is one; None for none.

    Raises :class:`ValueError` for a count that no machine has.
    """
    total = 0
    types: set[str] = set()
    for item in _split_items(text):
        name, *words = item.split(":")
        if name == "gpu":
            count, kind = _parse_gpu(words)
            total += count
            types |= {kind} if kind else set()
    if total > MAX_GPUS:
        raise ValueError(f"{total} GPUs in one node")
    if not total:
        return None
    return {"count": total, "type": types.pop()} if len(types) == 1 else total


def _split_items(text: str) -> list[str]:
    return [item.strip() for item in _BINDING.sub("", text).split(",") if item.strip()]


def _parse_gpu(words: list[str]) -> tuple[int, str]:
    """Count and type; without a count it is one."""
    words = [word for word in words if word and word != _FLAG]
    match = _COUNT.fullmatch(words[-1]) if words else None
    kind = "".join((words[:-1] if match else words)[:1])
    if match is None:
        count = 1
    else:
        count = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
    return count, kind if _TYPE.fullmatch(kind) else ""
