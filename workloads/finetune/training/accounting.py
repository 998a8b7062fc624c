"""Where the time of a step goes, what arithmetic it does, and what that costs in energy and money.

Rules, so that the figures cannot flatter: steps that warm up or compile are left out (see
`reporting.warmup_steps`), tokens are text and not padding, arithmetic that is done twice to save
memory counts once, and a part of a peak is reported only where the peak is known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..base.world import World

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


class EnergyMeter:
    """Joules that this rank's GPU has used, by NVML's own counter (Volta and later), which moves
    every 100 ms. `missing` says why there are none, empty where there are.
    """

    def __init__(self, world: World) -> None:
        self._handle: Any = None
        self._nvml: Any = None
        self.missing = ""
        if world.device.type != "cuda":
            self.missing = f"NVML counts the energy of GPUs, and this is a {world.device.type}"
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(world.device).uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            self._nvml = pynvml
        except Exception as error:  # noqa: BLE001 - energy is reported where it can be
            self.missing = f"NVML: {type(error).__name__}: {error}"

    def joules(self) -> float | None:
        """Since the driver was loaded; None where nothing counts."""
        if self._nvml is None:
            return None
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of training, and what this rank's GPU took in them, if that is counted."""

    seconds: float
    joules: float | None


class Meter(Protocol):
    """What counts the energy of this rank's device."""

    def joules(self) -> float | None:
        """Since some moment in the past; None where nothing counts."""


class Stopwatch:
    """Time and energy lap by lap, the waiting between steps included. What is done while it is
    paused is in no lap.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.restart()

    def restart(self) -> None:
        """Begin a lap now."""
        self._began, self._joules = time.monotonic(), self._meter.joules()

    def lap(self) -> Used:
        """What was used since the last lap ended; the next one begins."""
        began, before = self._began, self._joules
        self.restart()
        now = self._joules
        counted = None if before is None or now is None else now - before
        return Used(self._began - began, counted)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done meanwhile."""
        paused_at, joules = time.monotonic(), self._meter.joules()
        yield
        self._began += time.monotonic() - paused_at
        now = self._meter.joules()
        if self._joules is not None and joules is not None and now is not None:
            self._joules += now - joules
