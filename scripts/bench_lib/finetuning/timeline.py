"""Where a step's time goes: kernels by class, and the time in which none runs.  Pure.

Kernels of several streams overlap: sums over a class may exceed the time that passes. So the time
in which anything runs is that of the union of intervals, and communication also has a part that
nothing else hides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

COMMUNICATION, PRODUCTS = "communication", "matrix products"
OTHER = "norms and element-wise"
CLASSES = (
    (COMMUNICATION, ("nccl", "gloo", "c10d")),
    ("attention", ("flash", "fmha", "attention", "cudnn_generated", "sdpa")),
    (PRODUCTS, ("gemm", "cutlass", "xmma", "nvjet", "cublas", "addmm", "::mm", "::bmm")),
    ("cross entropy", ("cross_entropy", "softmax", "nll_loss")),
    ("optimiser", ("adam", "multi_tensor")),
    ("rounding to fp8", ("quantise",)),
    ("copies", ("memcpy", "memset", "copy_")),
)


class Kernel(NamedTuple):
    """What ran on the device from `start` to `end`, in microseconds of one clock."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Seconds: from the first kernel's start to the last one's end, with any kernel running, with
    communication alone running, and the sum of each class.
    """

    span: float
    busy: float
    exposed: float
    by_class: dict[str, float]


def timeline(kernels: Sequence[Kernel]) -> Timeline:
    """Raises ValueError when nothing ran."""
    if not kernels:
        raise ValueError("no kernel ran")
    by_class: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_class[class_of(kernel.name)] += (kernel.end - kernel.start) / 1e6
    span = max(kernel.end for kernel in kernels) - min(kernel.start for kernel in kernels)
    busy = covered(kernels)
    computing = covered(k for k in kernels if class_of(k.name) != COMMUNICATION)
    return Timeline(
        span=span / 1e6, busy=busy / 1e6, exposed=(busy - computing) / 1e6, by_class=dict(by_class)
    )


def class_of(name: str) -> str:
    """The kind of work that a kernel's name tells of."""
    low = name.lower()
    return next((kind for kind, words in CLASSES if any(word in low for word in words)), OTHER)


def covered(kernels: Iterable[Kernel]) -> float:
    """Microseconds in which at least one of them runs."""
    total, until = 0.0, float("-inf")
    for _, start, end in sorted(kernels, key=lambda kernel: kernel.start):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def gaps(kernels: Iterable[Kernel], most: int = 12) -> list[tuple[float, str, str]]:
    """The longest times in which nothing runs, longest first: microseconds, the kernel that ended
    before, and the one that began after.
    """
    found: list[tuple[float, str, str]] = []
    last: Kernel | None = None
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        if last is not None and kernel.start > last.end:
            found.append((kernel.start - last.end, last.name, kernel.name))
        if last is None or kernel.end > last.end:
            last = kernel
    return sorted(found, reverse=True)[:most]
