"""What a step's matrix products and attention take alone, one after another with nothing between:
no trainer of these products is faster.

The products are those of the fused engine, adapters and output layer included, on its own
storages; they go on for `SUSTAINED_S`, since a GPU at its power limit slows down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from finetune.fused.attention import Heads, attend, documents
from finetune.fused.fp8 import Rounded
from finetune.fused.fused_projection import FusedProjection, product
from finetune.fused.head import chunk_rows
from finetune.fused.reference import Rows8

from .work import Work

SUSTAINED_S = 2.5
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds of one step on one GPU."""

    products_s: float
    attention_s: float

    @property
    def seconds(self) -> float:
        return self.products_s + self.attention_s


def bound_of(model: Any, work: Work) -> Bound:
    """Of the engine's `model`, a `FusedModel`; in fp8 if its projections are."""
    settings = work.settings
    assert isinstance(settings.micro_batch, int)
    tokens = settings.micro_batch * settings.sequence_length
    passes = work.tokens_per_step / work.world.size / tokens
    return Bound(
        passes * _seconds(list(_products(model, tokens)), work),
        passes * _seconds(list(_attention(model, tokens, settings.sequence_length)), work),
    )


def _seconds(calls: list[Call], work: Work) -> float:
    """Of all `calls` once, on average over `SUSTAINED_S`."""
    _pass(calls, work)
    once = _pass(calls, work)
    count = max(1, round((SUSTAINED_S if work.on_gpu else 0.0) / once))
    return sum(_pass(calls, work) for _ in range(count)) / count


def _pass(calls: list[Call], work: Work) -> float:
    work.world.synchronize()
    began = time.perf_counter()
    for call in calls:
        call()
    work.world.synchronize()
    return time.perf_counter() - began


def _products(model: Any, tokens: int) -> Iterator[Call]:
    """Forward and backward of all projections, then of the output layer."""
    rooms = _Rooms(tokens, _device(model), _kind(model))
    for layer in model.layers:
        for own in layer.joined:
            yield from _of_projection(own, rooms)
    yield from _of_head(model, tokens)


class _Rooms:
    """One buffer for each width and use: what is in it has no effect on the time, as long as it is
    random.
    """

    def __init__(self, tokens: int, device: torch.device, kind: torch.dtype) -> None:
        self._tokens, self._device, self._kind = tokens, device, kind
        self._found: dict[tuple[int, str], Tensor] = {}
        self._rounded: dict[tuple[int, int, str], Rows8] = {}

    def get(self, width: int, use: str) -> Tensor:
        """[T, width]."""
        key = width, use
        if key not in self._found:
            drawn = torch.randn(self._tokens, width, device=self._device)
            self._found[key] = drawn.to(self._kind)
        return self._found[key]

    def rounded(self, by: Rounded, width: int, thin: int, use: str) -> Rows8:
        """The same in 8 bits, with so many columns of an adapter before them."""
        key = width, thin, use
        if key not in self._rounded:
            x = self.get(width, use)
            self._rounded[key] = by.rounded(x)
            by.put_before(self._rounded[key], x, self.get(thin, "thin"))
        return self._rounded[key]


def _of_projection(own: FusedProjection, rooms: _Rooms) -> Iterator[Call]:
    x = rooms.get(own.width + own.spare, "x")
    y = rooms.get(own.out_width + own.spare, "y")
    thin = rooms.get(own.thin, "thin")
    inner, outer = x[:, : own.width], y[:, : own.out_width]
    down, up = own._down, own._up  # noqa: SLF001 - the products are told by their operands
    to_x, to_y = rooms.get(own.width, "to x"), rooms.get(own.out_width, "to y")
    yield lambda: torch.mm(inner, down.t(), out=thin)
    yield lambda: torch.mm(outer, up, out=thin)
    rounded = getattr(own, "_rounded", None)
    if rounded is None:
        weight, frozen = own.storage[: own.out_width], own.storage[:, : own.width]
        yield lambda: torch.mm(x, weight.t(), out=to_y)
        yield lambda: torch.mm(y, frozen, out=to_x)
    else:
        left = rooms.rounded(rounded, own.width, own.thin, "x")
        back = rooms.rounded(rounded, own.out_width, own.thin, "y")
        yield lambda: rounded.multiply(left, to_y)
        yield lambda: rounded.multiply_back(back, to_x)
    yield lambda: product(thin.t(), inner)
    for out, h in zip(outer.split(own.outs, 1), thin.split(own.rank, 1), strict=True):
        yield partial(product, out.t(), h)


def _of_head(model: Any, tokens: int) -> Iterator[Call]:
    head = model._head  # noqa: SLF001 - as above
    weight, kind = head.weight, _kind(model)
    size = min(tokens, chunk_rows(weight.shape[0], weight.element_size()))
    hidden = torch.randn(size, weight.shape[1], device=weight.device).to(kind)
    logits = torch.randn(size, weight.shape[0], device=weight.device).to(kind)
    rounded = getattr(head, "_rounded", None)
    left, back = (rounded.rounded(t) if rounded else None for t in (hidden, logits))
    for _ in range(-(-tokens // size)):
        if rounded is None:
            yield lambda: torch.mm(hidden, weight.t(), out=logits)
            yield lambda: torch.mm(logits, weight, out=hidden)
        else:
            yield lambda: rounded.multiply(left, logits)
            yield lambda: rounded.multiply_back(back, hidden)


def _attention(model: Any, tokens: int, length: int) -> Iterator[Call]:
    form, device, kind = model.form, _device(model), _kind(model)
    positions = torch.arange(length).repeat(tokens // length)[None]
    where = documents(positions)

    def drawn(heads: int) -> Tensor:
        return torch.randn(tokens, heads, form.depth, device=device).to(kind)

    heads = Heads(drawn(form.heads), drawn(form.kv_heads), drawn(form.kv_heads))
    grad = drawn(form.heads).flatten(1)

    def both() -> None:
        attend(heads, where, form.scale, keep=True).backward(grad)

    for _ in model.layers:
        yield both


def _device(model: Any) -> torch.device:
    found: torch.device = model.layers[0].qkv.storage.device
    return found


def _kind(model: Any) -> torch.dtype:
    found: torch.dtype = model.layers[0].qkv.storage.dtype
    return found
