"""A GPU's own counter of energy, by NVML."""

from __future__ import annotations

import os
from typing import Any

from orchestrate_kit._nvml import Nvml, find_gpus


class Energy:
    """The energy counter of the GPU with this number among those that the process sees."""

    def __init__(self, number: int) -> None:
        try:
            self._nvml = Nvml()
            gpus = find_gpus(self._nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
            self._gpu: Any = gpus[number][1]
        except Exception:  # noqa: BLE001 - no library, no driver, no such GPU: no figure
            self._gpu = None

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        if self._gpu is None:
            return None
        millijoules = self._nvml.read(self._gpu).millijoules
        return None if millijoules is None else millijoules / 1e3
