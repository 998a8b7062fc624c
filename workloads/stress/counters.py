"""Power, clocks, temperature and NVLink payload of one GPU, read once a second beside the load."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

INTERVAL_S = 1.0
MAX_SAMPLES = 7200
STOP_S = 10.0
ALL_LINKS = 0xFFFFFFFF
KIB = 1024
# nvmlClocksEventReasons of nvml.h: the hardware slows down, and by itself.
SLOWDOWN = 0x8 | 0x40 | 0x80


@dataclass(frozen=True, kw_only=True)
class Sample:
    """None: this GPU or driver does not say. ``sent`` and ``received`` are bytes of payload over
    NVLink since the driver was loaded.
    """

    t: float
    watts: float | None
    sm_mhz: float | None
    celsius: float | None
    slowed: bool | None
    sent: int | None
    received: int | None


class Counters:
    """Samples of the GPU with this UUID, the first one taken before this returns; without NVML's
    Python bindings there are none, and ``why_not`` says so.
    """

    def __init__(self, uuid: str) -> None:
        self.samples: list[Sample] = []
        self.why_not = ""
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(uuid,), daemon=True)
        self._thread.start()
        self._begun.wait(STOP_S)

    def stop(self) -> None:
        """Ends with one more sample. A driver that does not answer is waited for, not for ever."""
        self._over.set()
        self._thread.join(STOP_S)

    def _run(self, uuid: str) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception as error:  # noqa: BLE001 - no bindings, no driver, another name: no samples
            self.why_not = f"{type(error).__name__}: {error}"
            self._begun.set()
            return
        self.samples.append(_sample(pynvml, gpu))
        self._begun.set()
        while not self._over.wait(INTERVAL_S) and len(self.samples) < MAX_SAMPLES:
            self.samples.append(_sample(pynvml, gpu))
        self.samples.append(_sample(pynvml, gpu))


def _sample(nvml: Any, gpu: Any) -> Sample:
    def ask(function: str, *arguments: Any) -> Any:
        with suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, function)(gpu, *arguments)
        return None

    milliwatts = ask("nvmlDeviceGetPowerUsage")
    reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    sent, received = _payload(nvml, gpu)
    return Sample(
        t=time.monotonic(),
        watts=None if milliwatts is None else milliwatts / 1e3,
        sm_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        slowed=None if reasons is None else bool(reasons & SLOWDOWN),
        sent=sent,
        received=received,
    )


def _payload(nvml: Any, gpu: Any) -> tuple[int | None, int | None]:
    """Of all links; the counters of raw bytes also count acknowledgements."""
    fields = [
        (nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS),
        (nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS),
    ]
    try:
        values = nvml.nvmlDeviceGetFieldValues(gpu, fields)
    except (nvml.NVMLError, TypeError):
        return None, None
    sent, received = (
        None if value.nvmlReturn else int(value.value.ullVal) * KIB for value in values
    )
    return sent, received


def predicted_bytes(message: int, ranks: int, sums: int) -> float:
    """What each rank sends for ``sums`` all-reduces of ``message`` bytes without in-switch
    reduction: 2 (n - 1) / n of the message (nccl-tests, PERFORMANCE.md).
    """
    return 2 * (ranks - 1) / ranks * message * sums


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Of what was seen; what was not is left out."""
    found: dict[str, float] = {}
    watts = [one.watts for one in samples if one.watts is not None]
    clocks = [one.sm_mhz for one in samples if one.sm_mhz is not None]
    degrees = [one.celsius for one in samples if one.celsius is not None]
    slowed = [one.slowed for one in samples if one.slowed is not None]
    sent = [one.sent for one in samples if one.sent is not None]
    if watts:
        found |= {"mean_watts": sum(watts) / len(watts), "peak_watts": max(watts)}
    if clocks:
        found |= {"least_sm_mhz": min(clocks)}
    if degrees:
        found |= {"hottest_celsius": max(degrees)}
    if slowed:
        found |= {"slowed_samples": float(sum(slowed))}
    if len(sent) > 1:
        found |= {"nvlink_sent_bytes": float(sent[-1] - sent[0])}
    return found
