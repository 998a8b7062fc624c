"""The terms of one training step: LoRA on frozen weights, or all weights.

FLOPs as Kaplan et al. count them (2020, arXiv 2001.08361, section 2.1): 2 for each weight and token
forward, 2 for the gradient of the input, 2 for that of the weight, which frozen ones have none of.
Causal attention does half of the products of all pairs; its backward pass 2.5 times the forward one
(FlashAttention-2, arXiv 2307.08691, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.core.costs.collective_seconds import all_reduce_s
from orchestrator.core.costs.estimate import Term, WorkPlace
from orchestrator.core.costs.hardware import FabricHardware, GpuHardware
from orchestrator.core.costs.model_shape import ModelShape

BF16, FP32 = 2, 4
MOMENTS_BYTES = 16  # value, gradient and AdamW's two moments in fp32
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = 2, 2, 2
ATTENTION_BACKWARD = 2.5
LOGITS_BYTES = 1 << 30  # the output layer works in chunks of so many bytes (fused/head.py)
MICROSECOND, MILLISECOND = 1e-6, 1e-3
# Values that pass through memory beside products, for each value of a width: two norms, the sums of
# the residual stream, rotation and copies of queries and keys, SwiGLU and its gradient, counted in
# workloads/finetune/fused/layer.py.
HIDDEN_PASSES, MLP_PASSES, QKV_PASSES, LOGIT_PASSES = 20, 9, 5, 4
KERNELS_PER_LAYER = 95  # counted in workloads/finetune/fused/layer.py and fused_projection.py


class TrainingJob(NamedTuple):
    """``rows`` of ``sequence`` tokens in a micro-batch of one rank, ``accumulation`` of them in a
    step; ``rank`` of the adapters, 0 = all weights are trained. ``text``: tokens of each of the
    texts that are packed into a row, 0 = a row is one; ``targets``: the share of tokens that are
    predicted, for the output layer computes no others.
    """

    shape: ModelShape
    rows: int
    sequence: int
    accumulation: int = 1
    gpus: int = 1
    rank: int = 64
    text: int = 0
    targets: float = 1.0

    @property
    def tokens(self) -> int:
        """Of one micro-batch of one rank."""
        return self.rows * self.sequence

    @property
    def tokens_per_step(self) -> int:
        """Of all ranks."""
        return self.tokens * self.accumulation * self.gpus

    @property
    def trained(self) -> int:
        """Values that are trained."""
        shape = self.shape
        return shape.adapter_values(self.rank) if self.rank else shape.parameters

    @property
    def attended(self) -> int:
        """Tokens among which each attends: those of its text."""
        return min(self.text or self.sequence, self.sequence)


def product_flops(job: TrainingJob) -> float:
    """Of the matrix products of one rank's step."""
    frozen = FORWARD + INPUT_GRADIENT
    whole = frozen + WEIGHT_GRADIENT
    used = job.shape.used_matrices - (1 - job.targets) * job.shape.table
    each = frozen * used + whole * job.trained if job.rank else whole * used
    return float(job.accumulation * job.tokens * each)


def attention_flops(job: TrainingJob) -> float:
    """Of causal attention, both ways: scores and their sum of values, half of all pairs."""
    forward = 2.0 * job.tokens * job.attended * job.shape.mixed
    return job.accumulation * job.shape.layers * forward * (1 + ATTENTION_BACKWARD)


def passed_bytes(job: TrainingJob) -> float:
    """Through memory, beside products."""
    shape = job.shape
    mlp = MLP_PASSES * shape.active_width
    layer = HIDDEN_PASSES * shape.hidden + mlp + QKV_PASSES * shape.qkv
    values = shape.layers * layer + job.targets * LOGIT_PASSES * shape.vocabulary
    return float(BF16 * job.accumulation * job.tokens * values)


def step_terms(job: TrainingJob, device: GpuHardware, fabric: FabricHardware) -> Iterator[Term]:
    """Seconds of one step, by the data sheet alone."""
    peak, memory = device.flops["bf16"], device.memory_bytes_s
    kernels = job.accumulation * job.shape.layers * KERNELS_PER_LAYER
    work = (
        Term("products", product_flops(job) / peak),
        Term("attention", attention_flops(job) / peak),
        Term("passes", passed_bytes(job) / memory),
        Term("kernels", kernels * MICROSECOND),
    )
    yield from work
    yield Term("launches", kernels * MICROSECOND, WorkPlace.HOST)
    yield Term("optimiser", 7.0 * FP32 * job.trained / memory, WorkPlace.AFTER)
    yield Term("step", MILLISECOND, WorkPlace.AFTER)
    if job.gpus > 1:
        exchanged = all_reduce_s(FP32 * job.trained, job.gpus, fabric)
        yield Term("exchange", exchanged, WorkPlace.AFTER)
        alone = sum(term.amount for term in work[:3])
        yield Term("slowest", alone * (1 - 1 / job.gpus), WorkPlace.AFTER)


def memory_terms(job: TrainingJob) -> Iterator[Term]:
    """Peak bytes of one rank: what stays, what the layers keep for the way back, and what the
    layer or the output chunk under way needs besides.
    """
    yield Term("held", float(held_bytes(job)))
    yield Term("kept", float(BF16 * job.tokens * job.shape.layers * kept_values(job)))
    yield Term("working", float(max(_layer_bytes(job), _head_bytes(job))))


def held_bytes(job: TrainingJob) -> int:
    """Weights, and for what is trained its gradient and moments, too. Adapters lie a second time,
    in bf16, beside the frozen matrices (fused/fused_projection.py).
    """
    weights = BF16 * job.shape.parameters
    if not job.rank:
        return weights + MOMENTS_BYTES * job.trained
    # Untied: training holds embedding and output layer apart.
    return weights + (MOMENTS_BYTES + BF16) * job.trained


def kept_values(job: TrainingJob) -> int:
    """Of one token in one layer, from its forward to its backward pass (fused/memory.py)."""
    shape, thin = job.shape, 7 * job.rank
    wide = 2 * shape.active_width + 2 * job.rank
    return 2 * shape.hidden + shape.qkv + shape.mixed + thin + wide


def _layer_bytes(job: TrainingJob) -> float:
    shape = job.shape
    return float(BF16 * job.tokens * (3 * shape.active_width + 4 * shape.hidden))


def _head_bytes(job: TrainingJob) -> float:
    logits = min(LOGITS_BYTES, BF16 * job.targets * job.tokens * job.shape.vocabulary)
    return float(logits + BF16 * job.tokens * 3 * job.shape.hidden)


def power_terms(job: TrainingJob, device: GpuHardware, step_s: float) -> Iterator[Term]:
    """Watts of one GPU: at rest, and for what it computes and moves in a second."""
    computed = product_flops(job) + attention_flops(job)
    yield Term("idle", device.idle_w)
    yield from activity_terms(computed, passed_bytes(job), step_s)


def activity_terms(flops: float, moved: float, seconds: float) -> Iterator[Term]:
    """A picojoule for each FLOP, ten for each byte, which their coefficients correct."""
    yield Term("computed", flops / seconds * 1e-12)
    yield Term("moved", moved / seconds * 1e-11)


def roofline_s(job: TrainingJob, device: GpuHardware, fabric: FabricHardware) -> float:
    """The bare roofline, for comparison: arithmetic at the peak or bytes at the memory's rate,
    whichever is longer, and the exchange.
    """
    computed = (product_flops(job) + attention_flops(job)) / device.flops["bf16"]
    moved = (passed_bytes(job) + BF16 * job.shape.parameters) / device.memory_bytes_s
    return max(computed, moved) + all_reduce_s(FP32 * job.trained, job.gpus, fabric)
