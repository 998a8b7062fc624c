"""STREAM's four kernels in Triton: what the compute units move, not the copy engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 4096
WARPS = 8


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _copy(a: tl.tensor, c: tl.tensor, count: tl.tensor, block: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    tl.store(c + at, tl.load(a + at, mask=inside), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _scale(
    b: tl.tensor, c: tl.tensor, count: tl.tensor, scalar: tl.tensor, block: tl.constexpr
) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    tl.store(b + at, scalar * tl.load(c + at, mask=inside), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _add(a: tl.tensor, b: tl.tensor, c: tl.tensor, count: tl.tensor, block: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    tl.store(c + at, tl.load(a + at, mask=inside) + tl.load(b + at, mask=inside), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _triad(  # noqa: PLR0917 - three arrays and what they are made of
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    count: tl.tensor,
    scalar: tl.tensor,
    block: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    value = tl.load(b + at, mask=inside) + scalar * tl.load(c + at, mask=inside)
    tl.store(a + at, value, mask=inside)


def kernels(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, scalar: float
) -> dict[str, Callable[[], Any]]:
    """The kernels on these arrays, as STREAM has them: c = a, b = s c, c = a + b, a = b + s c."""
    count = a.numel()
    grid = (triton.cdiv(count, BLOCK),)
    shape = {"block": BLOCK, "num_warps": WARPS}
    return {
        "copy": lambda: _copy[grid](a, c, count, **shape),
        "scale": lambda: _scale[grid](b, c, count, scalar, **shape),
        "add": lambda: _add[grid](a, b, c, count, **shape),
        "triad": lambda: _triad[grid](a, b, c, count, scalar, **shape),
    }
