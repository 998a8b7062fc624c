"""Which device a rank computes on: one GPU for each local rank, or the CPU."""

from __future__ import annotations


def device_of_rank(device: str, local_rank: int, gpus: int) -> str:
    """``"cpu"`` or ``"cuda:2"``, as torch names devices.

    ``device`` is what was asked for: ``cpu``, ``cuda`` or ``auto``, which is the CPU where this
    process sees no ``gpus``. Raises ``RuntimeError`` for a local rank that has no GPU.
    """
    if device == "cpu" or (device == "auto" and gpus == 0):
        return "cpu"
    if local_rank >= gpus:
        raise RuntimeError(
            "local rank %d has no GPU: %d visible; "
            "start fewer ranks on this node, or pass --device cpu" % (local_rank, gpus)
        )
    return "cuda:%d" % local_rank
