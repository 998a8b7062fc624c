"""Gradients are summed over the ranks while the layers below are still computing theirs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch.distributed as dist
from torch import Tensor

BUCKET_BYTES = 64 << 20


class Overlap:
    """One step's sum over the ranks of `buffer` [n + 1], whose parts belong to layers in order.

    `sizes` are the layers' numbers of values; the last place of the buffer belongs to none.
    """

    def __init__(
        self, buffer: Tensor, sizes: Sequence[int], bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        if sum(sizes) != len(buffer) - 1:
            raise ValueError(f"layers have {sum(sizes)} values, the buffer {len(buffer) - 1}")
        self._buffer = buffer
        self._ends = list(accumulate(sizes))
        self._bucket = max(1, bucket_bytes // buffer.element_size())
        self._works: list[dist.Work] = []
        self._top = len(buffer) - 1
        self._open = len(sizes)  # layers below it are not finished

    @property
    def begun(self) -> bool:
        """Whether some gradients were sent: from then on they must not change."""
        return bool(self._works)

    def finished(self, layer: int) -> None:
        """The gradients of this layer and of all above are complete on this rank. Where buckets end
        depends on the sizes alone, so that the same parts meet on all ranks.
        """
        for below in reversed(range(layer, self._open)):
            low = self._ends[below - 1] if below else 0
            if self._top - low >= self._bucket or below == 0:
                work = dist.all_reduce(self._buffer[low : self._top], async_op=True)
                assert work is not None
                self._works.append(work)
                self._top = low
        self._open = min(self._open, layer)

    def wait(self) -> None:
        """Until all is summed. A rank without a micro-batch sends what it has, nothing, here."""
        self.finished(0)
        dist.all_reduce(self._buffer[-1:])
        for work in self._works:
            work.wait()
