"""Where the time of a step goes, and what arithmetic it does.

Rules, so that the figures cannot flatter: steps that warm up or compile are left out (see
`reporting.warmup_steps`), tokens are text and not padding, arithmetic that is done twice to save
memory counts once, and a part of a peak is reported only where the peak is known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

# Dense bf16 FLOP/s by the vendor's data sheets, for the boards that torch names so.
PEAK_BF16 = {
    "NVIDIA A30": 165e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_name: str) -> float | None:
    """The peak of the longest known name that begins the device's; None where it is not known."""
    known = [name for name in PEAK_BF16 if device_name.startswith(name)]
    return PEAK_BF16[max(known, key=len)] if known else None


def flop_per_token(model: Any) -> int:
    """4 for each frozen weight of a matrix product: 2 forward, 2 for the gradient of its input; a
    frozen weight has none of its own. 6 for each weight of the adapter. Kaplan et al. (2020,
    arXiv 2001.08361, section 2.1) count so, with 6 for weights that are trained. Attention scores
    are left out, and the input embedding, which is a look-up.
    """
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is table.weight
    matrices = [p for p in model.parameters() if p.dim() > 1]
    trained = sum(p.numel() for p in matrices if p.requires_grad)
    frozen = sum(p.numel() for p in matrices if not p.requires_grad)
    return int(4 * (frozen - (0 if tied else table.weight.numel())) + 6 * trained)


@dataclass(slots=True)
class Lap:
    """Seconds of one step that went into waiting."""

    data_s: float = 0.0
    communication_s: float = 0.0


class Clock:
    """Times parts of a step without making the device wait: on CUDA by events in its stream, which
    are read after the step, when the device is done with it anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._data_s = self._communication_s = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def data(self, *, waited: bool) -> Iterator[None]:
        """Waiting for a micro-batch; `waited` if the device has nothing to do meanwhile."""
        began = time.monotonic()
        yield
        if waited:
            self._data_s += time.monotonic() - began

    @contextmanager
    def communication(self) -> Iterator[None]:
        """Waiting for gradients of other ranks."""
        if not self._cuda:
            began = time.monotonic()
            yield
            self._communication_s += time.monotonic() - began
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._events.append((begin, end))

    def lap(self) -> Lap:
        """Since the last call; the device must be done with what was timed."""
        on_device = sum(begin.elapsed_time(end) for begin, end in self._events) / 1e3
        lap = Lap(self._data_s, self._communication_s + on_device)
        self._data_s = self._communication_s = 0.0
        self._events.clear()
        return lap


class Stopwatch:
    """Time lap by lap, the waiting between steps included. What is done while it is paused is in no
    lap.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a lap now."""
        self._began = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap ended; the next one begins."""
        began = self._began
        self.restart()
        return self._began - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done meanwhile."""
        paused_at = time.monotonic()
        yield
        self._began += time.monotonic() - paused_at
