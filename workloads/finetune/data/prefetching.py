"""Micro-batches, made by another thread shortly before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

import torch

from .packing import Batch, Row

AHEAD = 2  # batches that are made, or being made, while one is in use
Part = Sequence[Row]


class Prefetcher:
    """`make` lays out a part's rows. Which batches come, and in which order, depends on the calls
    alone. What `make` raises is raised where that batch is asked for.
    """

    def __init__(self, make: Callable[[Part], Batch], device: torch.device) -> None:
        self._make = make
        self._pinned = device.type == "cuda"
        # A thread that pins memory for another GPU would make a context there.
        prepare = partial(torch.cuda.set_device, device) if self._pinned else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=prepare)
        self._begun: deque[tuple[Part, Future[Batch]]] = deque()

    def batches(self, parts: Sequence[Part], following: Sequence[Part] = ()) -> Iterator[Batch]:
        """Of `parts`. The first ones of `following`, too, are begun, for the next call."""
        coming = [*parts, *following]
        if [part for part, _ in self._begun] != coming[: len(self._begun)]:
            self._forget()
        later = iter(coming[len(self._begun) :])
        for _ in parts:
            for part in islice(later, 1 + AHEAD - len(self._begun)):
                self._begun.append((part, self._thread.submit(self._one, part)))
            _, batch = self._begun.popleft()
            yield batch.result()

    def close(self) -> None:
        """End the thread."""
        self._forget()
        self._thread.shutdown()

    def _forget(self) -> None:
        """Other parts are wanted than those that were expected."""
        for _, batch in self._begun:
            batch.cancel()
        self._begun.clear()

    def _one(self, part: Part) -> Batch:
        batch = self._make(part)
        return batch.pinned() if self._pinned else batch
