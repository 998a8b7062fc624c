"""Patterns written to all free memory of a GPU and read back: cells that stick, lines that mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..base.options import Options

BLOCK_BYTES = 1 << 30
COMPARED_ITEMS = 1 << 26
ITEM_BYTES = 8
# What torch and the comparison itself need beside the blocks.
KEPT_SHARE = 0.9
ALTERNATING = 0x5555_5555_5555_5555

Fill = Callable[[torch.Tensor, int], None]


def measure(device: torch.device, options: Options) -> dict[str, Any]:
    """All blocks are written before one is read: two addresses that are one cell show, too."""
    blocks = list(_blocks(device, options))
    wrong = 0
    for pattern in (_alternating, _inverted, _address, _inverted_address):
        for number, block in enumerate(blocks):
            pattern(block, number)
        wrong += sum(_wrong(block, number, pattern) for number, block in enumerate(blocks))
    items = sum(block.numel() for block in blocks)
    return {"wrong": wrong, "checked": 4 * items, "gb": items * ITEM_BYTES / 1e9}


def _blocks(device: torch.device, options: Options) -> Iterator[torch.Tensor]:
    size = options.stream_mib << 20
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        size = int(free * KEPT_SHARE)
    while size >= ITEM_BYTES:
        taken = min(size, BLOCK_BYTES)
        yield torch.empty(taken // ITEM_BYTES, dtype=torch.int64, device=device)
        size -= taken


def _alternating(part: torch.Tensor, _: int) -> None:
    part.fill_(ALTERNATING)


def _inverted(part: torch.Tensor, _: int) -> None:
    part.fill_(~ALTERNATING)


def _address(part: torch.Tensor, first: int) -> None:
    """Every item its own number over all blocks."""
    start = first * (BLOCK_BYTES // ITEM_BYTES)
    torch.arange(start, start + part.numel(), out=part)


def _inverted_address(part: torch.Tensor, first: int) -> None:
    _address(part, first)
    part.bitwise_not_()


def _wrong(block: torch.Tensor, number: int, pattern: Fill) -> int:
    """Items of a block that do not hold what was written there."""
    expected = torch.empty_like(block[:COMPARED_ITEMS])
    pattern(expected, number)
    moves = pattern in (_address, _inverted_address)
    step = COMPARED_ITEMS if pattern is _address else -COMPARED_ITEMS
    wrong = 0
    for at in range(0, block.numel(), COMPARED_ITEMS):
        part = block[at : at + COMPARED_ITEMS]
        wrong += int((part != expected[: part.numel()]).sum().item())
        if moves:
            expected.add_(step)
    return wrong
