"""Memory by phase and over time, as the allocator and torch's memory tracker see it.

On a GPU the phases run twice: first alone, for the allocator's own figures, then under the
tracker, which says what the bytes are for and slows everything down. On a CPU, whose allocator
counts nothing, the tracker's sum stands for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from .phases import Phase

MAX_POINTS = 20_000
MAX_HISTORY = 200_000
HOLDERS = {
    "Parameter": "weights",
    "Buffer": "buffers",
    "Gradient": "gradients",
    "Activation": "activations and cache",
    "Temp": "temporary, backward",
    "Optstate": "optimizer",
    "Other": "inputs",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """``place`` has just been left; ``bytes`` are those that live then."""

    t: float
    phase: str
    place: str
    bytes: int


@dataclass(kw_only=True)
class Watched:
    """``peaks`` by phase; ``holders``: bytes at the highest point of all, or ``holders_unknown``
    says why not. ``reserved``: what the allocator took from the driver at most; None on a CPU.
    """

    peaks: dict[str, int] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    holders: dict[str, int] = field(default_factory=dict)
    reserved: int | None = None
    holders_unknown: str = ""

    @property
    def peak(self) -> int:
        return max(self.peaks.values())


def watch_allocator(
    model: Any, phases: Iterator[Phase], device: torch.device, snapshot: Path | None
) -> Watched:
    """The allocator's figures on a GPU; its snapshot, with the stack of every allocation, goes to a
    file that https://pytorch.org/memory_viz shows.
    """
    found = Watched()
    if snapshot:
        torch.cuda.memory._record_memory_history(stacks="python", max_entries=MAX_HISTORY)  # noqa: SLF001 - documented
    with _timeline(model, found, lambda: torch.cuda.memory_allocated(device)) as note:
        for name, work in phases:
            note(name, "begins")
            torch.cuda.reset_peak_memory_stats(device)
            work()
            torch.cuda.synchronize(device)
            note(name, "ends")
            found.peaks[name] = torch.cuda.max_memory_allocated(device)
            found.reserved = max(found.reserved or 0, torch.cuda.max_memory_reserved(device))
    if snapshot:
        torch.cuda.memory._dump_snapshot(str(snapshot))  # noqa: SLF001 - documented
        torch.cuda.memory._record_memory_history(enabled=None)  # noqa: SLF001 - documented
    return found


def watch_tracker(model: Any, phases: Iterator[Phase], device: torch.device) -> Watched:
    """The sums of all tensors on the device, by what they are for."""
    found = Watched()
    tracker = MemTracker()
    tracker.track_external(model)

    def live() -> int:
        return totals(tracker, "current", device).get("Total", 0)

    with tracker, _timeline(model, found, live) as note, _one_pass_each(model, tracker):
        for name, work in phases:
            note(name, "begins")
            work()
            note(name, "ends")
            found.peaks[name] = max(p.bytes for p in found.points if p.phase == name)
    at_peak = totals(tracker, "peak", device)
    highest = max(found.peaks, key=lambda name: found.peaks[name])
    found.peaks[highest] = max(found.peaks[highest], at_peak.pop("Total", 0))
    found.holders = {HOLDERS.get(kind, kind): size for kind, size in at_peak.items() if size}
    return found


def totals(tracker: MemTracker, kind: str, device: torch.device) -> dict[str, int]:
    """Bytes by the tracker's own names, with ``Total``."""
    for where, sizes in tracker.get_tracker_snapshot(kind).items():
        if where.type == device.type:
            return {str(getattr(name, "value", name)): size for name, size in sizes.items()}
    return {}


@contextmanager
def _timeline(
    model: Any, found: Watched, live: Callable[[], int]
) -> Iterator[Callable[[str, str], None]]:
    """A point whenever a layer of the model is left, and whenever the caller calls what it gets,
    with phase and place.
    """
    began, phase = time.monotonic(), ""

    def note(name: str, place: str) -> None:
        nonlocal phase
        phase = name
        if len(found.points) < MAX_POINTS:
            now = time.monotonic() - began
            found.points.append(Point(t=now, phase=name, place=place, bytes=live()))

    def hook_of(place: str) -> Callable[..., None]:
        return lambda *_: note(phase, place)

    handles = [
        module.register_forward_hook(hook_of(name))
        for name, module in model.named_modules()
        if name == "lm_head" or name.rpartition(".")[0].endswith("layers")
    ]
    try:
        yield note
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _one_pass_each(model: Any, tracker: MemTracker) -> Iterator[None]:
    """The tracker keeps statistics of modules for one pass only: in inference, where no backward
    pass needs them, they are dropped after each.
    """

    def drop(*_: object) -> None:
        if not torch.is_grad_enabled():
            tracker.reset_mod_stats()

    handle = model.register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()
