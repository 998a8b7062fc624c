"""Vectors of parameters as bytes that travel, and back; the coordinator reads the same layout.

    int8  a scale (float32) for each block of 256 values, then the values as -127 .. 127
    bf16  the upper half of each float32, rounded to the nearest
    none  float32

Decoding is one multiplication in float32: every machine gets the same bits.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence

import torch
from torch.nn import functional

BLOCK = 256
SMALLEST_SCALE = 1e-30


def compress(vector: torch.Tensor, compression: str) -> list[torch.Tensor]:
    """The parts of the bytes, in order, on the device of `vector`."""
    if compression == "none":
        return [vector]
    if compression == "bf16":
        return [vector.to(torch.bfloat16)]
    blocks = functional.pad(vector, (0, -len(vector) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1) / 127
    scales = torch.where(scales < SMALLEST_SCALE, torch.zeros_like(scales), scales)
    inverse = torch.where(scales > 0, 1 / scales, torch.zeros_like(scales))
    values = (blocks * inverse[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return [scales, values.flatten()[: len(vector)]]


def decompress(parts: Sequence[torch.Tensor], compression: str) -> torch.Tensor:
    """What `compress` lost nothing of but precision."""
    if compression == "none":
        return parts[0]
    if compression == "bf16":
        return parts[0].float()
    scales, values = parts
    blocks = functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK).float()
    blocks *= scales[:, None]
    return blocks.flatten()[: len(values)]


def to_bytes(part: torch.Tensor) -> memoryview:
    """The bytes of one part on the CPU."""
    content: memoryview = part.contiguous().view(torch.uint8).cpu().numpy().data
    return content


def from_bytes(content: memoryview, compression: str, count: int) -> list[torch.Tensor]:
    """The parts in `content`, on the CPU. Raises `ValueError` if that is not their size."""
    blocks = -(-count // BLOCK)
    layout = {
        "int8": [(torch.float32, blocks), (torch.int8, count)],
        "bf16": [(torch.bfloat16, count)],
        "none": [(torch.float32, count)],
    }[compression]
    sizes = [dtype.itemsize * number for dtype, number in layout]
    if len(content) != sum(sizes):
        raise ValueError(f"{len(content)} bytes instead of {sum(sizes)}")
    parts: list[torch.Tensor] = []
    start = 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        for (dtype, _), size in zip(layout, sizes, strict=True):
            raw = torch.frombuffer(content[start : start + size], dtype=torch.uint8)
            parts.append(raw.clone().view(dtype))
            start += size
    return parts


def digest(vector: torch.Tensor) -> str:
    """Identity of all bits."""
    return hashlib.sha256(to_bytes(vector)).hexdigest()
