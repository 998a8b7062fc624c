"""Evidence of healthy H200s, as ranks of the acceptance workload would have gathered it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from acceptance.base import bandwidth
from acceptance.judge.evidence import Evidence
from acceptance.judge.limits import Limits

GIB = 2**30
LOSSES = {"losses": [10.0, 5.0], "repeats": True, "flops_per_token": 1.2e9}


def evidence(nodes: int, per_node: int) -> Evidence:
    """Nodes ``n1``... of equal GPUs; between nodes there are only slow sockets."""
    parts = [_part(rank, nodes, per_node) for rank in range(nodes * per_node)]
    return Evidence(parts=parts, limits=Limits.load(), environment={"NCCL_NVLS_ENABLE": "0"})


def _part(rank: int, nodes: int, per_node: int) -> dict[str, Any]:
    local, number = rank % per_node, rank // per_node
    mates = list(range(number * per_node, (number + 1) * per_node))
    everyone = list(range(nodes * per_node))
    training = [_trained("gpu", [rank], 250_000.0), _trained("node", mates, 240_000.0)]
    sweeps = list(_sweep("node", mates, 1, 362.0))
    if nodes > 1:
        training.append(_trained("all", everyone, 60_000.0))
        sweeps += _sweep("all", everyone, nodes, 5.0)
    state = {"ecc_uncorrected": 0, "remap_pending": 0, "remap_failed": 0, "throttle": 4}
    pairs = [[None if a == b else 373.0 for b in range(per_node)] for a in range(per_node)]
    both = {"copy engine": pairs, "kernel": pairs, "wrong": 0, "checked": 9, "notes": []}
    return {
        "rank": rank,
        "node": f"n{number + 1}",
        "local_rank": local,
        "leads_node": local == 0,
        "gpu": "NVIDIA H200",
        "uuid": f"GPU-{rank}",
        "ports": [],
        "matmul_bf16": _product(785.0),
        "matmul_fp8": _product(1440.0),
        "sustained": {
            "last": 700.0, "digest": 7, "different_cells": 0, "compared_cells": 100,
        },
        "memory": {
            "kernels": {
                kernel: {"torch": {"best": 4390.0, "median": 4380.0}}
                for kernel in bandwidth.STREAM_ARRAYS
            },
            "wrong": 0,
            "checked": 100,
        },
        "patterns": {"wrong": 0, "checked": 400, "gb": 126.0},
        "launches": {"k_per_s": 220.0, "slowest": 210.0, "us": 4.5},
        "together": {"hidden": 0.9, "late_ms": 0.1},
        "copies": {"host-to-device": 55.0, "device-to-host": 55.0, "wrong": 0, "checked": 2},
        "collectives": sweeps,
        "training": training,
        "health": {
            "before": dict(state), "after": dict(state), "unseen": "",
            "samples": [
                {"t": float(t), "power_w": 600.0 + t, "sm_clock_mhz": 1900.0,
                 "temperature_c": 50.0, "throttle": 4}
                for t in range(5)
            ],
        },
        **({"pairs": both} if local == 0 else {}),
    }  # fmt: skip


def _product(rate: float) -> dict[str, Any]:
    best = {"shape": [8192, 8192, 8192], "median": rate}
    return {"best": best, "wrong": 0, "checked": 100}


def _trained(scope: str, members: list[int], rate: float) -> dict[str, Any]:
    return {"scope": scope, "members": members, "tokens_per_s": rate, **LOSSES}


def _sweep(scope: str, members: list[int], nodes: int, peak: float) -> Iterator[dict[str, Any]]:
    for collective in bandwidth.COLLECTIVES:
        for size in (2**20, 4 * GIB):
            rate = peak if size > GIB else peak / 20
            seconds = size * bandwidth.bus_factor(collective, len(members)) / rate / 1e9
            yield {
                "collective": collective, "placement": "in-place", "scope": scope,
                "members": members, "nodes": nodes, "size": size, "warmup": 5, "iterations": 20,
                "seconds": seconds, "p50": seconds, "p99": seconds, "busbw": rate, "wrong": 0,
                "checked": size // 4,
            }  # fmt: skip
