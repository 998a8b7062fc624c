"""The device that a rank computes on: which one it is, what it can do, what it needed."""

from __future__ import annotations

import torch

import orchestrate_kit as kit


def choose_device(device: str, local_rank: int) -> torch.device:
    """What ``device`` stands for on this rank; a GPU is torch's current one from then on. Raises
    ``RuntimeError`` for a device that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = torch.device(kit.device_of_rank(device, local_rank, gpus))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int | None:
    """The allocator's peak since its last reset; None on a CPU, whose allocator counts nothing."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def fp8_reason(device: torch.device) -> str:
    """Empty, or why fp8 products cannot run there; a CPU computes them, slowly."""
    if device.type != "cuda":
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    return "" if (major, minor) >= (8, 9) else f"compute capability {major}.{minor} has no fp8"
