"""Steps on the device: prompts into slots, one token for every slot; on GPUs as recorded graphs.

Everything that a decode step needs stays on the device from step to step, so that the next one can
be launched before the tokens of the last one are here.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from .decoder import Cache, Kept, decode, prefill
from .options import AUTO, TRITON, EngineOptions
from .slots import ROUND_TOKENS, Request, Sequence, bucket_of, rounded, row_buckets
from .weights import Weights

LEAST_USED = 256  # recorded steps read this much of the cache at least, then powers of two
COLDEST = 1e-5
REHEARSED = 256  # tokens of the longest prompt that is rehearsed
FULL = 0.9  # of a batch of prompts: with less padding all of it is computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A step that was launched: for each row the sequence that its token is for, or None."""

    rows: tuple[Sequence | None, ...]
    tokens: torch.Tensor
    done: torch.cuda.Event | None

    def wait(self) -> list[int]:
        """The tokens, one a row, once they are here."""
        if self.done is not None:
            self.done.synchronize()
        tokens: list[int] = self.tokens.tolist()
        return tokens


class Steps:
    """The cache with the state of every slot, and what computes on them."""

    def __init__(
        self,
        weights: Weights,
        *,
        slots: int,
        length: int,
        ends: Items[int],
        options: EngineOptions,
    ) -> None:
        self._weights = weights
        self._cache = Cache(weights, slots, rounded(length) + ROUND_TOKENS)
        self._trash = self._cache.length - 1
        self._buckets = row_buckets(slots)
        self._fused = uses_triton(options.kernels, weights.device)
        self._tile = options.tile
        self._length, self._budget = length, options.prefill_tokens
        self._graphs: dict[tuple[int, int, bool], _Recorded] = {}
        device = weights.device
        self._on_gpu = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._on_gpu else None
        self._tokens = torch.zeros(slots, dtype=torch.long, device=device)
        self._positions = torch.zeros(slots, dtype=torch.long, device=device)
        self._active = torch.zeros(slots, dtype=torch.bool, device=device)
        self._temperatures = torch.zeros(slots, device=device)
        self._forbidden = torch.zeros(slots, dtype=torch.long, device=device)
        self._ends = torch.tensor(list(ends), dtype=torch.long, device=device)
        self._active_now: frozenset[int] = frozenset()

    @property
    def slots(self) -> int:
        return self._cache.slots

    def prepare(self) -> None:
        """Record the steps of all numbers of rows, and compute prompts that nobody asked, so that
        no request waits for kernels that are loaded when they are first used.
        """
        if self._on_gpu:
            for rows in self._buckets:
                self._recorded(rows, self._readable(1), sampled=False)
            self.rehearse()

    def rehearse(self) -> None:
        """One prompt alone, then as many as are computed together, without padding and with it.
        They leave nothing behind that is read: slots are written anew before they are used.
        """
        longest = max(1, min(REHEARSED, self._length - 1))
        count = max(1, min(self.slots, self._budget // rounded(longest)))
        mixed = [longest if number % 2 else max(1, longest // 4) for number in range(count)]
        for sizes in ([longest], [longest] * count, mixed):
            requests = [Request(tokens=(0,) * size, max_tokens=1) for size in sizes]
            prompts = [
                Sequence(request=request, number=-1, slot=slot)
                for slot, request in enumerate(requests)
            ]
            self.prefill(prompts).wait()

    @torch.inference_mode()
    def prefill(self, sequences: Items[Sequence]) -> Flight:
        """Launch the prompts of these, which have slots; each gets its first token."""
        prompts = [sequence.request.tokens for sequence in sequences]
        # A multiple of 64, as far as the model has positions.
        width = min(rounded(max(map(len, prompts))), len(self._weights.cos))
        padded: list[Items[int]] = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
        tokens, lengths = self._here(padded), self._here([len(prompt) for prompt in prompts])
        slots = self._here([sequence.slot for sequence in sequences])
        least = [len(s.request.tokens) + s.request.min_tokens for s in sequences]
        temperatures = [sequence.request.temperature for sequence in sequences]
        self._positions[slots] = lengths
        self._forbidden[slots] = self._here(least)
        self._temperatures[slots] = self._here(temperatures)
        kept = self._kept(prompts, width)
        logits = prefill(self._weights, self._cache, tokens, lengths, slots, kept=kept)
        chosen = self._choose(logits, slots, sampled=any(temperatures))
        self._tokens[slots] = chosen
        for sequence in sequences:
            sequence.launched = 1
        return self._flight(tuple(sequences), chosen)

    @torch.inference_mode()
    def decode(self, sequences: Items[Sequence]) -> Flight:
        """Launch one more token of each of these."""
        rows = bucket_of(max(sequence.slot for sequence in sequences) + 1, self._buckets)
        self._activate(frozenset(sequence.slot for sequence in sequences))
        sampled = any(sequence.request.temperature for sequence in sequences)
        longest = max(len(s.request.tokens) + s.launched for s in sequences)
        used = self._readable(longest)
        if self._on_gpu:
            chosen = self._recorded(rows, used, sampled=sampled).replay()
        else:
            chosen = self._step(rows, used, sampled=sampled)
        by_row: list[Sequence | None] = [None] * rows
        for sequence in sequences:
            by_row[sequence.slot] = sequence
            sequence.launched += 1
        return self._flight(tuple(by_row), chosen)

    def _step(self, rows: int, used: int, *, sampled: bool) -> torch.Tensor:
        """One token more for slots 0 to rows - 1; the state of those that are active moves on."""
        active, places = self._active[:rows], self._positions[:rows]
        written = places.masked_fill(~active, self._trash)
        logits = self._logits(self._tokens[:rows], written, used)
        places += active
        slots = torch.arange(rows, device=logits.device)
        chosen = self._choose(logits, slots, sampled=sampled)
        self._tokens[:rows] = torch.where(active, chosen, self._tokens[:rows])
        return chosen

    def _logits(self, tokens: torch.Tensor, positions: torch.Tensor, used: int) -> torch.Tensor:
        """Logits (rows, vocabulary) after one more token of the first slots."""
        if not self._fused:
            return decode(self._weights, self._cache, tokens, positions, used)
        from . import fused_decode

        return fused_decode.decode(self._weights, self._cache, tokens, positions, self._tile)

    def _choose(self, logits: torch.Tensor, slots: torch.Tensor, *, sampled: bool) -> torch.Tensor:
        """The next token of these slots, (rows,): the likeliest one, or drawn at a temperature
        (by dividing through exponential noise, which takes no sorting and no wait).
        """
        if len(self._ends):
            too_early = self._positions[slots, None] < self._forbidden[slots, None]
            logits[:, self._ends] = logits[:, self._ends].masked_fill(too_early, -torch.inf)
        likeliest = logits.argmax(-1)
        if not sampled:
            return likeliest
        warmth = self._temperatures[slots, None]
        shares = (logits.float() / warmth.clamp(min=COLDEST)).softmax(-1)
        drawn = (shares / torch.empty_like(shares).exponential_()).argmax(-1)
        return torch.where(warmth[:, 0] > 0, drawn, likeliest)

    def _recorded(self, rows: int, used: int, *, sampled: bool) -> _Recorded:
        key = (rows, used, sampled)
        if key not in self._graphs:
            # What recording computes must change nothing: as if no slot were active.
            was = self._active.clone()
            self._active.zero_()
            self._graphs[key] = _Recorded(
                partial(self._step, rows, used, sampled=sampled), self._pool
            )
            self._active.copy_(was)
        return self._graphs[key]

    def _kept(self, prompts: Items[Items[int]], width: int) -> Kept | None:
        """Row and place of what is no padding, where leaving that out is worth more kernels."""
        sizes = [len(prompt) for prompt in prompts]
        if len(prompts) == 1 or sum(sizes) > FULL * len(prompts) * width:
            return None
        rows = [row for row, size in enumerate(sizes) for _ in range(size)]
        places = [place for size in sizes for place in range(size)]
        return self._here(rows), self._here(places)

    def _readable(self, longest: int) -> int:
        """How much of the cache a step reads for slots of at most ``longest`` tokens."""
        if self._fused:  # its kernels read what each slot uses
            return self._cache.length
        if not self._on_gpu:
            return rounded(longest)
        size = LEAST_USED
        while size < longest:
            size *= 2
        return min(size, self._cache.length)

    def _activate(self, slots: frozenset[int]) -> None:
        if slots != self._active_now:
            self._active_now = slots
            flags = [slot in slots for slot in range(self._cache.slots)]
            self._active.copy_(self._here(flags))

    def _here(
        self, values: list[Items[int]] | list[int] | list[float] | list[bool]
    ) -> torch.Tensor:
        """Values as a tensor on the device, without waiting for it."""
        made = torch.tensor(values)
        if not self._on_gpu:
            return made
        return made.pin_memory().to(self._weights.device, non_blocking=True)

    def _flight(self, rows: tuple[Sequence | None, ...], chosen: torch.Tensor) -> Flight:
        if not self._on_gpu:
            return Flight(rows=rows, tokens=chosen, done=None)
        host = torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=True)
        host.copy_(chosen, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return Flight(rows=rows, tokens=host, done=done)


def uses_triton(kernels: str, device: torch.device) -> bool:
    """Whether Triton's kernels compute a step; by themselves only on a GPU, if it is installed."""
    if kernels == AUTO:
        return device.type == "cuda" and find_spec("triton") is not None
    return kernels == TRITON


class _Recorded:
    """A decode step of so many rows as a CUDA graph: one launch in place of hundreds."""

    def __init__(self, step: Callable[[], torch.Tensor], pool: Any) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._chosen = step()

    def replay(self) -> torch.Tensor:
        """The tokens, one a row; valid until the next replay."""
        self._graph.replay()
        return self._chosen
