"""What each capture reads of a GPU: columns, and the rows that NVML gives for them now.

A value that card, driver or our rights do not give is None. Payload of NVLink, not raw traffic: raw
counters include headers and acknowledgements, in the reverse direction of a copy most of all.
"""

from __future__ import annotations

import ctypes

from orchestrator.node_agent.base.nvml_library import Nvml
from orchestrator.node_agent.facts.nvml import (
    LINK_COUNT,
    MAX_LINKS,
    SM,
    TEMPERATURE_OF_GPU,
    read_memory,
    throttle_mask,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

    Row = list[int | float | None]
    Read = Callable[[Nvml, Any, bool], list[Row]]

MEMORY_CLOCK = 2
POWER_INSTANT = 186  # mW; nvmlDeviceGetPowerUsage is a mean over a second on recent boards
PAYLOAD_SENT, PAYLOAD_RECEIVED = 138, 139  # KiB since the driver was loaded
ALL_LINKS = 0xFFFFFFFF
WHOLE_GPU = -1  # in the column of links


class CaptureSource:
    """One capture. ``read`` is given whether the rows that are many are wanted, too; the first
    ``keys`` columns tell rows of a GPU apart.
    """

    def __init__(self, columns: Sequence[str], read: Read, keys: int = 0) -> None:
        self.columns = columns
        self.read = read
        self.keys = keys


def _power(nvml: Nvml, device: Any, _in_full: bool) -> list[Row]:
    energy = nvml.number("nvmlDeviceGetTotalEnergyConsumption", device, kind=ctypes.c_ulonglong)
    average = nvml.number("nvmlDeviceGetPowerUsage", device)
    return [[nvml.field(device, POWER_INSTANT), average, energy]]


def _clocks(nvml: Nvml, device: Any, _in_full: bool) -> list[Row]:
    clocks = [
        nvml.number("nvmlDeviceGetClockInfo", device, ctypes.c_uint(kind))
        for kind in (SM, MEMORY_CLOCK)
    ]
    sensor = ctypes.c_uint(TEMPERATURE_OF_GPU)
    temperature = nvml.number("nvmlDeviceGetTemperature", device, sensor)
    return [[*clocks, throttle_mask(nvml, device), temperature]]


def _memory(nvml: Nvml, device: Any, _in_full: bool) -> list[Row]:
    total, used = read_memory(nvml, device)
    return [[used if total else None]]


def _nvlink(nvml: Nvml, device: Any, in_full: bool) -> list[Row]:
    """The sum over all links; in full, each link that has counters, too."""
    count = (nvml.field(device, LINK_COUNT) or MAX_LINKS) if in_full else 0
    links = [WHOLE_GPU, *range(min(count, MAX_LINKS))]
    wanted = [
        (counter, ALL_LINKS if link == WHOLE_GPU else link)
        for link in links
        for counter in (PAYLOAD_SENT, PAYLOAD_RECEIVED)
    ]
    counts = nvml.fields(device, wanted)
    rows: list[Row] = [[link, *counts[2 * i : 2 * i + 2]] for i, link in enumerate(links)]
    return [row for row in rows if row[0] == WHOLE_GPU or row[1] is not None]


READINGS = {
    "power": CaptureSource(("instant_mw", "average_mw", "energy_mj"), _power),
    "clocks": CaptureSource(("sm_mhz", "memory_mhz", "throttle", "temperature_c"), _clocks),
    "memory": CaptureSource(("used_bytes",), _memory),
    "nvlink": CaptureSource(("link", "sent_kib", "received_kib"), _nvlink, keys=1),
}
