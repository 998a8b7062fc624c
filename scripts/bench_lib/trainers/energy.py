"""A GPU's own counter of energy, by NVML."""

from __future__ import annotations

import time
from contextlib import suppress

import torch


class EnergyCounter:
    """Joules of the device since it was made; None where nothing counts them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = time.perf_counter()
        self._at_start = self._joules()

    def lap(self) -> tuple[float | None, float]:
        """Joules and seconds since the start."""
        joules = self._joules()
        seconds = time.perf_counter() - self._began
        if joules is None or self._at_start is None:
            return None, seconds
        return joules - self._at_start, seconds

    def _joules(self) -> float | None:
        if self._device.type != "cuda":
            return None
        with suppress(Exception):  # NVML's own errors, and its bindings may be missing
            import pynvml

            pynvml.nvmlInit()
            properties = torch.cuda.get_device_properties(self._device)
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}".encode())
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        return None
