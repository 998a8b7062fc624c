"""Vectors of trained parameters in files, smaller than they are in memory.

    int8  a scale (float32) for each block of 256 values, then the values as -127 .. 127
    bf16  the upper half of each float32, rounded to the nearest
    none  float32, little-endian as all of these

A value is decoded by one multiplication in float32, so that every machine decodes the same bits.
Import this module only where vectors are worked on: it loads numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLOCK = 256
# What is smaller is nothing: products with such scales would round differently on GPUs.
SMALLEST_SCALE = np.float32(1e-30)
LARGEST = 1e9


def size_of(compression: str, count: int) -> int:
    """The bytes of ``count`` values."""
    if compression == "int8":
        return 4 * _block_count(count) + count
    return count * (2 if compression == "bf16" else 4)


@dataclass(frozen=True, slots=True)
class Vector:
    """``count`` values in ``content``, which may be a file mapped into memory."""

    content: Bytes
    compression: str
    count: int

    def read(self, start: int, end: int) -> Floats:
        """Values from ``start``, a multiple of the block size, to ``end``: a new array."""
        match self.compression:
            case "int8":
                scales, values = self._int8(start, end)
                return _scale_blocks(values.astype(np.float32), scales)
            case "bf16":
                half: NDArray[np.uint16] = self.content[2 * start : 2 * end].view(np.uint16)
                return (half.astype(np.uint32) << np.uint32(16)).view(np.float32)
            case _:
                return self.content[4 * start : 4 * end].view(np.float32).copy()

    def weighted(self, start: int, end: int, weight: np.float32) -> Floats:
        """The same, each times ``weight``."""
        if self.compression == "int8":
            scales, values = self._int8(start, end)
            return _scale_blocks(values.astype(np.float32), scales * weight)
        values_read = self.read(start, end)
        values_read *= weight
        return values_read

    def is_acceptable(self, start: int, end: int) -> bool:
        """Whether all are finite and none is beyond anything that training could mean."""
        if self.compression == "int8":
            return is_acceptable(self._int8(start, end)[0] * np.float32(127))
        return is_acceptable(self.read(start, end))

    def write(self, start: int, values: Floats) -> Floats:
        """Put ``values`` at ``start``; returns them as they will be read."""
        end = start + len(values)
        match self.compression:
            case "int8":
                scales, packed = self._int8(start, end)
                scales[:] = _scales_of(values)
                inverse = np.where(scales > 0, 1 / np.maximum(scales, SMALLEST_SCALE), 0)
                scaled = _scale_blocks(values.copy(), inverse.astype(np.float32))
                np.rint(scaled, out=scaled)
                np.clip(scaled, -127, 127, out=scaled)
                packed[:] = scaled
            case "bf16":
                bits = values.view(np.uint32)
                rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
                half = (rounded >> np.uint32(16)).astype(np.uint16)
                self.content[2 * start : 2 * end].view(np.uint16)[:] = half
            case _:
                self.content[4 * start : 4 * end].view(np.float32)[:] = values
        return self.read(start, end)

    def _int8(self, start: int, end: int) -> tuple[Floats, NDArray[np.int8]]:
        """The scales and the values of a range, as views."""
        blocks = _block_count(self.count)
        scales = self.content[: 4 * blocks].view(np.float32)[start // BLOCK : _block_count(end)]
        return scales, self.content[4 * blocks + start : 4 * blocks + end].view(np.int8)


def is_acceptable(values: Floats) -> bool:
    """Whether all are finite, and none beyond anything that training could mean."""
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.all(np.abs(values) <= LARGEST))


def _block_count(count: int) -> int:
    return -(-count // BLOCK)


def _scales_of(values: Floats) -> Floats:
    whole = len(values) // BLOCK * BLOCK
    largest = np.abs(values[:whole]).reshape(-1, BLOCK).max(axis=1)
    if whole < len(values):
        largest = np.append(largest, np.abs(values[whole:]).max())
    scales = largest.astype(np.float32) / np.float32(127)
    return np.where(scales < SMALLEST_SCALE, np.float32(0), scales)


def _scale_blocks(values: Floats, scales: Floats) -> Floats:
    """Multiply each block by its scale, in place."""
    whole = len(values) // BLOCK
    blocks = values[: whole * BLOCK].reshape(-1, BLOCK)
    blocks *= scales[:whole, None]
    if whole < len(scales):
        values[whole * BLOCK :] *= scales[whole]
    return values
