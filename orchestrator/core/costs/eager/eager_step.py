"""The terms of transformers' own forward pass, as the workload ``large`` runs it: all prompts at
once, then one token of each sequence at a time.

Bytes and arithmetic are those of any inference. What differs: every kernel is launched from Python,
norms and rotations are many of them, and a cache that grows is copied with each token.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.costs.estimate import Term, WorkPlace
from orchestrator.core.costs.hardware import FabricHardware, GpuHardware
from orchestrator.core.costs.inference_step import (
    InferenceJob,
    cache_bytes,
    decode_flops,
    exchange_terms,
    held_values,
    mean_length,
    prefill_flops,
    read_bytes,
)
from orchestrator.core.costs.training_step import BF16, MICROSECOND, activity_terms

# Of one layer, counted in transformers 5's LlamaDecoderLayer: two norms of 8 kernels, rotation of
# queries and keys of 5, 7 products, cache 2, repeated heads 2, attention, SwiGLU 2, two sums.
KERNELS_PER_LAYER = 42
# Values that pass through memory beside products, for each value of a width: norms in fp32 and
# sums; SwiGLU; rotation, repeated heads and cache.
HIDDEN_PASSES, MLP_PASSES, QKV_PASSES = 60, 5, 20


class EagerJob(InferenceJob):
    """As :class:`InferenceJob`, by this program."""


def decode_terms(job: EagerJob, device: GpuHardware, fabric: FabricHardware) -> Iterator[Term]:
    """Seconds of one decode step of a GPU, in the middle of the answers."""
    memory = device.memory_bytes_s
    kernels = job.shape.layers * KERNELS_PER_LAYER * MICROSECOND
    yield Term("weights", read_bytes(job) / memory, WorkPlace.READ)
    yield Term("products", decode_flops(job) / device.flops["bf16"], WorkPlace.COMPUTED)
    yield Term("cache", cache_bytes(job, mean_length(job)) / memory)
    yield Term("kernels", kernels)
    yield from _host_terms(job)
    yield from exchange_terms(job, fabric, job.rows)


def prefill_terms(job: EagerJob, device: GpuHardware, fabric: FabricHardware) -> Iterator[Term]:
    """Seconds until all sequences have their first token."""
    shape, peak = job.shape, device.flops["bf16"]
    tokens = job.own_rows * job.prompt
    attention = 2.0 * tokens * job.prompt * shape.mixed * shape.layers / job.tensor
    cut = (MLP_PASSES * shape.active_width + QKV_PASSES * shape.qkv) / job.tensor
    passed = BF16 * tokens * shape.layers * (HIDDEN_PASSES * shape.hidden + cut)
    kernels = shape.layers * KERNELS_PER_LAYER * MICROSECOND
    yield Term("products", prefill_flops(job) / peak)
    yield Term("attention", attention / peak)
    yield Term("passes", passed / device.memory_bytes_s)
    yield Term("kernels", kernels)
    yield from _host_terms(job)
    yield from exchange_terms(job, fabric, tokens)


def _host_terms(job: EagerJob) -> Iterator[Term]:
    """What Python takes for a pass: kernels, and collectives of a divided model."""
    layers = job.shape.layers
    yield Term("launches", layers * KERNELS_PER_LAYER * MICROSECOND, WorkPlace.HOST)
    if job.tensor > 1:
        yield Term("collectives", 2 * layers * MICROSECOND, WorkPlace.HOST)


def memory_terms(job: EagerJob) -> Iterator[Term]:
    """Peak bytes of one GPU: weights, the cache, the MLP under way over all prompts."""
    shape = job.shape
    working = 3 * shape.active_width / job.tensor + 4 * shape.hidden
    yield Term("held", BF16 * held_values(job) / job.tensor)
    yield Term("kept", cache_bytes(job, job.prompt + job.answer))
    yield Term("working", BF16 * job.own_rows * job.prompt * working)


def power_terms(
    job: EagerJob, device: GpuHardware, step_s: float, first_s: float
) -> Iterator[Term]:
    """Mean watts of one GPU over prompts and answers."""
    steps = max(1, job.answer - 1)
    cache = cache_bytes(job, mean_length(job))
    moved = (steps + 1) * read_bytes(job) + 3 * steps * cache
    computed = prefill_flops(job) + steps * decode_flops(job)
    yield Term("idle", device.idle_w)
    yield from activity_terms(computed, moved, first_s + steps * step_s)
