"""Copies between a GPU and its host's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ..base.options import Options
from .timing import timed

SAMPLES = 3
COPIES = 4
_ADDRESS = ("domain", "bus", "device")


def measure(device: torch.device, options: Options) -> dict[str, Any]:
    """GB/s in both directions: pinned memory, near the GPU where the kernel says what is near."""
    count = options.copy_mib * 2**20 // 4
    cores = near_cores(device)
    with _on_cores(cores):
        host = torch.empty(count, dtype=torch.int32, pin_memory=True)
        host.copy_(torch.arange(count, dtype=torch.int32))
        on_gpu = torch.empty(count, dtype=torch.int32, device=device)
        to_gpu = _rate(lambda: on_gpu.copy_(host, non_blocking=True), device, host.nbytes)
        wrong = int((on_gpu != torch.arange(count, dtype=torch.int32, device=device)).sum().item())
        on_gpu.neg_()
        to_host = _rate(lambda: host.copy_(on_gpu, non_blocking=True), device, host.nbytes)
        wrong += int((host != -torch.arange(count, dtype=torch.int32)).sum().item())
    return {
        "host-to-device": to_gpu,
        "device-to-host": to_host,
        "wrong": wrong,
        "checked": 2 * count,
        "near_cores": len(cores),
        "mib": options.copy_mib,
    }


def _rate(copy: Any, device: torch.device, size: int) -> float:
    """The median of the samples; each is several copies, enqueued before the first begins."""

    def several() -> None:
        for _ in range(COPIES):
            copy()

    times = timed(several, device, warmup=1, iterations=SAMPLES, hold=True)
    return COPIES * size / times.median / 1e9


def near_cores(device: torch.device) -> set[int]:
    """The cores of the GPU's NUMA node; empty where that is not known."""
    properties = torch.cuda.get_device_properties(device)
    try:
        domain, bus, slot = (getattr(properties, f"pci_{part}_id") for part in _ADDRESS)
    except AttributeError:  # an older torch
        return set()
    folder = Path(f"/sys/bus/pci/devices/{domain:04x}:{bus:02x}:{slot:02x}.0")
    with suppress(OSError, ValueError):
        return parse_cores((folder / "local_cpulist").read_text(encoding="ascii"))
    return set()


def parse_cores(text: str) -> set[int]:
    """``0-3,8`` as the kernel writes it. Raises ``ValueError``."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


@contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    """Run there while inside, as far as we may: memory comes from where it is first touched."""
    before = os.sched_getaffinity(0)
    if cores & before:
        os.sched_setaffinity(0, cores & before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
