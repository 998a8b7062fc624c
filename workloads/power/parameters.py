"""What can be set; workload.yaml declares each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

PRECISIONS = ("fp32", "bf16")
MAX_BATCH = 65536
MAX_ROWS = 64
Item = TypeVar("Item")


@dataclass(frozen=True)
class Parameters:
    """The command line."""

    shape: str
    config: str
    precisions: str
    batches: str
    prompt_tokens: int
    new_tokens: int
    seconds: float
    gpu_hour_price: float
    device: str


def precisions_of(parameters: Parameters) -> list[str]:
    """Raises ``ValueError`` for what is none."""
    return _items("precisions", parameters.precisions, _precision)


def batches_of(parameters: Parameters) -> list[int]:
    """Raises ``ValueError`` for what is no batch."""
    return _items("batches", parameters.batches, _batch)


def _items(name: str, text: str, convert: Callable[[str], Item]) -> list[Item]:
    try:
        found = [convert(item.strip()) for item in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--{name} {text}: {error}") from None
    if _repeated(found) or len(found) > MAX_ROWS:
        raise ValueError(f"--{name} {text}: expected at most {MAX_ROWS} items, each once")
    return found


def _repeated(items: Sequence[object]) -> bool:
    return len(set(items)) < len(items)


def _precision(item: str) -> str:
    if item not in PRECISIONS:
        raise ValueError(f"{item!r} is none of {', '.join(PRECISIONS)}")
    return item


def _batch(item: str) -> int:
    if not item.isdecimal() or not 0 < int(item) <= MAX_BATCH:
        raise ValueError(f"{item!r} is no whole number from 1 to {MAX_BATCH}")
    return int(item)
