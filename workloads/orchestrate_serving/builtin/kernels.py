"""The decode step's operations as Triton kernels, for CUDA: few launches, each byte read once.

A step of few rows is bound by reading weights and cache. So what lies between two products is one
kernel, and a product with a single row reads each weight once, with as many loads under way as the
memory needs. Rows of the cache are addressed with 64 bits: 256 slots of 32,768 tokens need more
than 31.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .options import Tile

KEYS_AT_A_TIME = 64
# Parts that keys are read in, for as many pairs of row and key-value head as make about two
# programs for each multiprocessor of a large GPU; few kinds, since each is compiled.
SPLITS = (32, 4)
PROGRAMS = 256
LEAST_QUERIES = 16  # rows that a matrix product of the hardware has at least
ELEMENTS = 1024


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _add_norm(
    hidden: tl.tensor,
    delta: tl.tensor,
    weight: tl.tensor,
    normed: tl.tensor,
    width: tl.tensor,
    epsilon: tl.tensor,
    has_delta: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    total = tl.load(hidden + row * width + at, mask=inside, other=0.0)
    if has_delta:
        more = tl.load(delta + row * width + at, mask=inside, other=0.0)
        total = (total.to(tl.float32) + more.to(tl.float32)).to(total.dtype)
        tl.store(hidden + row * width + at, total, mask=inside)
    wide = total.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + epsilon)
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * width + at, (wide * inverse * scale).to(total.dtype), mask=inside)


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm of ``hidden + delta``, (rows, width); the sum stays in ``hidden``."""
    rows, width = hidden.shape
    normed = torch.empty_like(hidden)
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](
        hidden,
        hidden if delta is None else delta,
        weight,
        normed,
        width,
        epsilon,
        has_delta=delta is not None,
        block=block,
        num_warps=8 if block > ELEMENTS else 4,
    )
    return normed


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rotate_and_store(
    joined: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    positions: tl.tensor,
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    last: tl.tensor,
    length: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    half: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    position = tl.load(positions + row)
    at = tl.arange(0, half)
    start = joined + (row * (heads + 2 * kv_heads) + head) * 2 * half
    first = tl.load(start + at)
    second = tl.load(start + half + at)
    if head < heads + kv_heads:
        turn = tl.minimum(position, last) * 2 * half
        c = tl.load(cos + turn + at).to(tl.float32)
        s = tl.load(sin + turn + at).to(tl.float32)
        x, y = first.to(tl.float32), second.to(tl.float32)
        first = (x * c - y * s).to(first.dtype)
        second = (y * c + x * s).to(second.dtype)
    if head < heads:
        target = queries + (row * heads + head) * 2 * half
    elif head < heads + kv_heads:
        target = keys + ((row * kv_heads + head - heads) * length + position) * 2 * half
    else:
        target = (
            values + ((row * kv_heads + head - heads - kv_heads) * length + position) * 2 * half
        )
    tl.store(target + at, first)
    tl.store(target + half + at, second)


def rotate_and_store(
    joined: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Queries (rows, heads, head_size) at their positions; keys and values, at theirs, go into the
    cache of one layer, (slots, kv_heads, length, head_size). ``joined`` holds all three.
    """
    rows = len(joined)
    _, kv_heads, length, size = keys.shape
    heads = joined.shape[1] // size - 2 * kv_heads
    queries = torch.empty(rows, heads, size, dtype=joined.dtype, device=joined.device)
    _rotate_and_store[(rows, heads + 2 * kv_heads)](
        joined,
        cos,
        sin,
        positions,
        queries,
        keys,
        values,
        len(cos) - 1,
        length,
        heads=heads,
        kv_heads=kv_heads,
        half=size // 2,
        num_warps=2,
    )
    return queries


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _attend_part(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    positions: tl.tensor,
    mixed: tl.tensor,
    sums: tl.tensor,
    scale: tl.tensor,
    length: tl.tensor,
    splits: tl.constexpr,
    kv_heads: tl.constexpr,
    group: tl.constexpr,
    padded: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """One part of the keys of one row and key-value head, with a running softmax.

    Without parts ``mixed`` is the result; else it is a part's, in fp32, and ``sums`` holds the
    largest score (in powers of two) and the sum of exponentials that belong to it.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    part = tl.program_id(2)
    used = tl.load(positions + row) + 1
    share = tl.cdiv(tl.cdiv(used, splits), block) * block
    begin = part * share
    end = tl.minimum(begin + share, used)

    within = tl.arange(0, padded)
    at = tl.arange(0, size)
    member = within < group
    from_query = ((row * kv_heads + head) * group + within[:, None]) * size + at[None, :]
    query = tl.load(queries + from_query, mask=member[:, None], other=0.0)
    start = (row * kv_heads + head) * length * size

    largest = tl.full([padded], -1.0e30, tl.float32)
    total = tl.zeros([padded], tl.float32)
    result = tl.zeros([padded, size], tl.float32)
    for first in range(begin, end, block):
        place = first + tl.arange(0, block)
        seen = place < end
        from_cache = start + place[:, None] * size + at[None, :]
        key = tl.load(keys + from_cache, mask=seen[:, None], other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision=precision) * scale
        score = tl.where(seen[None, :], score, -1.0e30)
        larger = tl.maximum(largest, tl.max(score, axis=1))
        weight = tl.math.exp2(score - larger[:, None])
        weight = tl.where(seen[None, :], weight, 0.0)
        fade = tl.math.exp2(largest - larger)
        value = tl.load(values + from_cache, mask=seen[:, None], other=0.0)
        more = tl.dot(weight.to(value.dtype), value, input_precision=precision)
        result = result * fade[:, None] + more
        total = total * fade + tl.sum(weight, axis=1)
        largest = larger

    if splits == 1:
        result = result / total[:, None]
        tl.store(mixed + from_query, result.to(mixed.dtype.element_ty), mask=member[:, None])
    else:
        slot = ((row * kv_heads + head) * splits + part) * group + within
        tl.store(mixed + slot[:, None] * size + at[None, :], result, mask=member[:, None])
        tl.store(sums + 2 * slot, largest, mask=member)
        tl.store(sums + 2 * slot + 1, total, mask=member)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _join_parts(
    parts: tl.tensor,
    sums: tl.tensor,
    mixed: tl.tensor,
    splits: tl.constexpr,
    group: tl.constexpr,
    size: tl.constexpr,
) -> None:
    """The parts of one query head, each weighted by its share of the exponentials."""
    pair = tl.program_id(0).to(tl.int64)
    member = tl.program_id(1)
    part = tl.arange(0, splits)
    at = tl.arange(0, size)
    slot = (pair * splits + part) * group + member
    largest = tl.load(sums + 2 * slot)
    total = tl.load(sums + 2 * slot + 1)
    weight = tl.math.exp2(largest - tl.max(largest, axis=0))
    results = tl.load(parts + slot[:, None] * size + at[None, :])
    joined = tl.sum(results * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    target = mixed + (pair * group + member) * size + at
    tl.store(target, joined.to(mixed.dtype.element_ty))


LOG2_E = 1.4426950408889634


def attend(queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Attention of one token a row over its slot's keys up to ``positions``, which count.

    ``queries`` and the result are (rows, heads, head_size), the cache of one layer is (slots,
    kv_heads, length, head_size). Keys are read in parts at once where rows are few, as in
    FlashDecoding (crfm.stanford.edu/2023/10/12/flashdecoding.html).
    """
    rows, heads, size = queries.shape
    _, kv_heads, length, _ = keys.shape
    group, splits = heads // kv_heads, splits_for(rows * kv_heads)
    mixed = torch.empty_like(queries)
    parts, sums = mixed, mixed
    if splits > 1:
        parts = torch.empty(
            rows * heads * splits * size, dtype=torch.float32, device=queries.device
        )
        sums = torch.empty(rows * heads * splits * 2, dtype=torch.float32, device=queries.device)
    _attend_part[(rows, kv_heads, splits)](
        queries,
        keys,
        values,
        positions,
        parts,
        sums,
        LOG2_E * size**-0.5,
        length,
        splits=splits,
        kv_heads=kv_heads,
        group=group,
        padded=max(LEAST_QUERIES, triton.next_power_of_2(group)),
        size=size,
        block=KEYS_AT_A_TIME,
        precision="ieee",
        num_warps=4,
        num_stages=2,
    )
    if splits > 1:
        _join_parts[(rows * kv_heads, group)](
            parts, sums, mixed, splits=splits, group=group, size=size, num_warps=2
        )
    return mixed


def splits_for(pairs: int) -> int:
    """Parts that the keys of each pair of row and key-value head are read in."""
    return next((splits for splits in SPLITS if splits * pairs <= PROGRAMS), 1)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu(joined: tl.tensor, out: tl.tensor, width: tl.tensor, block: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    gate = tl.load(joined + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(joined + row * 2 * width + width + at, mask=inside, other=0.0)
    product = gate / (1.0 + tl.exp(-gate)) * up.to(tl.float32)
    tl.store(out + row * width + at, product.to(up.dtype), mask=inside)


def swiglu(joined: Tensor) -> Tensor:
    """silu(gate) * up of (rows, 2 * width), gate first; (rows, width)."""
    rows, width = len(joined), joined.shape[1] // 2
    out = torch.empty(rows, width, dtype=joined.dtype, device=joined.device)
    _swiglu[(rows, triton.cdiv(width, ELEMENTS))](joined, out, width, block=ELEMENTS, num_warps=4)
    return out


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _row_product(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    width: tl.constexpr,
    has_bias: tl.constexpr,
    even: tl.constexpr,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    stages: tl.constexpr,
) -> None:
    which = tl.program_id(0) * outputs + tl.arange(0, outputs)
    here = which < count
    at = tl.arange(0, inputs)
    # Outputs beyond the last one read its weights again: no mask in the loop.
    rows = weight + tl.minimum(which, count - 1).to(tl.int64)[:, None] * width
    sums = tl.zeros([outputs, inputs], tl.float32)
    for start in tl.range(0, width, inputs, num_stages=stages):
        if even:
            part = tl.load(x + start + at)
            block = tl.load(rows + start + at[None, :])
        else:
            inside = start + at < width
            part = tl.load(x + start + at, mask=inside, other=0.0)
            block = tl.load(rows + start + at[None, :], mask=inside[None, :], other=0.0)
        sums += block.to(tl.float32) * part.to(tl.float32)[None, :]
    total = tl.sum(sums, axis=1)
    if has_bias:
        total += tl.load(bias + which, mask=here, other=0.0).to(tl.float32)
    tl.store(out + which, total.to(out.dtype.element_ty), mask=here)


def row_product(x: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile) -> Tensor:
    """``x @ weight.T + bias`` for a single row, (1, outputs)."""
    count, width = weight.shape
    out = torch.empty(1, count, dtype=x.dtype, device=x.device)
    _row_product[(triton.cdiv(count, tile.outputs),)](
        x,
        weight,
        weight if bias is None else bias,
        out,
        count,
        width=width,
        has_bias=bias is not None,
        even=width % tile.inputs == 0,
        outputs=tile.outputs,
        inputs=tile.inputs,
        stages=tile.stages,
        num_warps=tile.warps,
    )
    return out
