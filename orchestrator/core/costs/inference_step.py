"""The terms of inference: prompts, and the step that gives each sequence its next token.

A decode step reads each weight and the whole cache once (roofline, Pope et al. 2022, arXiv
2211.05102). Of a mixture of experts it reads those that its tokens chose. Tensor parallelism cuts
matrices and cache over ranks and sums two activations a layer; expert parallelism deals experts out
and sends each token to its own and back; data parallelism repeats everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.core.costs.collective_seconds import all_reduce_s, all_to_all_s
from orchestrator.core.costs.estimate import Term, WorkPlace
from orchestrator.core.costs.expert_imbalance import Imbalance, Routing, imbalance
from orchestrator.core.costs.hardware import FabricHardware, GpuHardware
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.training_step import BF16, MICROSECOND, MILLISECOND, activity_terms

# Values that pass through memory beside products, for each value of a width, counted in
# workloads/orchestrate_serving/builtin/decoder.py.
HIDDEN_PASSES, MLP_PASSES, QKV_PASSES, LOGIT_PASSES = 10, 3, 3, 3
PROMPT_HIDDEN_PASSES, PROMPT_MLP_PASSES, PROMPT_QKV_PASSES = 20, 8, 8
KERNELS_PER_LAYER, PROMPT_KERNELS_PER_LAYER = 10, 30
PREFILL_TOKENS = 8192  # of prompts that are computed together (builtin/options.py)
CACHE_ROUND = 64  # slots of the cache have a multiple of so many tokens (builtin/slots.py)


class InferenceJob(NamedTuple):
    """``rows`` sequences at once of each replica, prompts of ``prompt`` tokens, answers of
    ``answer``. A replica spans ``tensor`` x ``expert`` GPUs; there are ``replicas`` of them.
    """

    shape: ModelShape
    rows: int
    prompt: int
    answer: int
    tensor: int = 1
    expert: int = 1
    replicas: int = 1
    routing: Routing = Routing(experts=0, active=0)

    @property
    def gpus(self) -> int:
        """Of all replicas."""
        return self.tensor * self.expert * self.replicas

    @property
    def batches(self) -> int:
        """In how many parts the prompts of a replica are computed."""
        together = max(1, PREFILL_TOKENS // max(1, self.prompt))
        return -(-self.rows // together)

    @property
    def own_rows(self) -> float:
        """Sequences whose attention one GPU computes."""
        return self.rows / self.expert

    def loads(self, tokens: int) -> Imbalance:
        """Of the experts of ``tokens``."""
        return imbalance(self.routing, tokens, self.expert)


def decode_terms(job: InferenceJob, device: GpuHardware, fabric: FabricHardware) -> Iterator[Term]:
    """Seconds of one decode step of a GPU, in the middle of the answers. One row has products of
    its own; several ones have a library's, which may take a second kernel to add up parts.
    """
    shape, memory = job.shape, device.memory_bytes_s
    kernels = shape.layers * KERNELS_PER_LAYER * MICROSECOND
    yield Term(
        "weights" if job.rows == 1 else "weights_rows", read_bytes(job) / memory, WorkPlace.READ
    )
    yield Term("products", decode_flops(job) / device.flops["bf16"], WorkPlace.COMPUTED)
    yield Term("cache", cache_bytes(job, mean_length(job)) / memory)
    if job.rows > 1:
        yield Term("kernels_rows", kernels)
    yield Term("rows", BF16 * job.own_rows * _passed_values(shape) / memory)
    yield Term("kernels", kernels)
    yield from exchange_terms(job, fabric, job.rows)
    yield Term("step", MILLISECOND, WorkPlace.HOST)
    yield Term("answers", job.rows * MICROSECOND, WorkPlace.HOST)


def serving_terms(job: InferenceJob) -> Iterator[Term]:
    """Seconds that a server takes for a decode step beside its engine: each answer is an event of a
    stream.
    """
    yield Term("step", MILLISECOND)
    yield Term("answers", job.rows * MICROSECOND)


def request_terms(job: InferenceJob) -> Iterator[Term]:
    """Seconds that a server takes for requests before their prompts are computed."""
    yield Term("requests", job.rows * MILLISECOND)


def mean_length(job: InferenceJob) -> float:
    """Tokens of a sequence in the middle of its answer."""
    return job.prompt + job.answer / 2


def cache_bytes(job: InferenceJob, length: float) -> float:
    """Keys and values of one GPU's sequences, each of ``length`` tokens."""
    return BF16 * job.shape.cache_values() * job.own_rows * length / job.tensor


def read_bytes(job: InferenceJob) -> float:
    """Weights that the slowest GPU reads in a decode step."""
    shape = job.shape
    if not shape.experts:
        return BF16 * shape.matrices / job.tensor
    experts = job.loads(job.rows).experts
    layer = shape.attention_weights + experts * shape.mlp_weights
    return BF16 * (shape.layers * layer + shape.table) / job.tensor


def decode_flops(job: InferenceJob) -> float:
    """Of the matrix products of one GPU's decode step; that with the most loaded experts."""
    shape = job.shape
    load = job.loads(job.rows).load if shape.experts else 1.0
    layer = shape.attention_weights + shape.active_mlp_weights * load
    used = shape.layers * layer + shape.table
    return 2.0 * used * job.own_rows / job.tensor


def prefill_terms(job: InferenceJob, device: GpuHardware, fabric: FabricHardware) -> Iterator[Term]:
    """Seconds until all prompts of a replica have their first token. Between two batches of prompts
    those that are done get one token more.
    """
    shape, peak = job.shape, device.flops["bf16"]
    tokens = job.own_rows * job.prompt
    attention = 2.0 * tokens * job.prompt * shape.mixed * shape.layers / job.tensor
    passed = BF16 * tokens * shape.layers * _prompt_values(shape) / job.tensor
    kernels = job.batches * shape.layers * PROMPT_KERNELS_PER_LAYER * MICROSECOND
    between = (job.batches - 1) / 2 * read_bytes(job)
    yield Term("products", prefill_flops(job) / peak)
    yield Term("attention", attention / peak)
    yield Term("passes", passed / device.memory_bytes_s)
    yield Term("kernels", kernels)
    yield Term("decodes", 2 * between / device.memory_bytes_s)
    yield from exchange_terms(job, fabric, job.rows * job.prompt)
    yield Term("launches", kernels, WorkPlace.HOST)
    yield Term("requests", job.rows * MICROSECOND, WorkPlace.AFTER)
    yield Term("step", MILLISECOND, WorkPlace.AFTER)


def prefill_flops(job: InferenceJob) -> float:
    """Of the layers over all prompts of one GPU; the output layer sees the last tokens alone."""
    shape, tokens = job.shape, job.own_rows * job.prompt
    load = job.loads(round(job.rows * job.prompt)).load if shape.experts else 1.0
    body = shape.layers * (shape.attention_weights + shape.active_mlp_weights * load)
    return 2.0 * (body * tokens + shape.table * job.own_rows) / job.tensor


def exchange_terms(job: InferenceJob, fabric: FabricHardware, tokens: float) -> Iterator[Term]:
    """Two sums over tensor ranks a layer; to the experts and back."""
    shape = job.shape
    size = BF16 * tokens / job.expert * shape.hidden
    if job.tensor > 1:
        summed = 2 * shape.layers * all_reduce_s(size, job.tensor, fabric)
        yield Term("exchange", summed, WorkPlace.AFTER)
    if job.expert > 1:
        sent = 2 * shape.layers * all_to_all_s(size * shape.active_experts, job.expert, fabric)
        yield Term("exchange", sent, WorkPlace.AFTER)


def memory_terms(job: InferenceJob) -> Iterator[Term]:
    """Peak bytes of one GPU."""
    shape = job.shape
    length = -(-(job.prompt + job.answer) // CACHE_ROUND) * CACHE_ROUND + CACHE_ROUND
    at_once = min(job.rows * job.prompt, max(job.prompt, PREFILL_TOKENS)) / job.expert
    yield Term("held", BF16 * held_values(job) / job.tensor)
    yield Term("kept", cache_bytes(job, length))
    yield Term("working", BF16 * at_once * _working_values(shape))


def held_values(job: InferenceJob) -> float:
    """Weights of one GPU, if tensors were not cut: experts are dealt out."""
    shape = job.shape
    spread = max(1, shape.experts) - -(-max(1, shape.experts) // job.expert)
    return shape.parameters - shape.layers * spread * shape.mlp_weights


def _working_values(shape: ModelShape) -> float:
    """Of one prompt token in the layer under way."""
    return 4 * shape.active_width + 4 * shape.hidden + 2 * shape.qkv


def _passed_values(shape: ModelShape) -> float:
    mlp = MLP_PASSES * shape.active_width
    layer = HIDDEN_PASSES * shape.hidden + mlp + QKV_PASSES * shape.qkv
    return float(shape.layers * layer + LOGIT_PASSES * shape.vocabulary)


def _prompt_values(shape: ModelShape) -> float:
    return float(
        PROMPT_HIDDEN_PASSES * shape.hidden
        + PROMPT_MLP_PASSES * shape.active_width
        + PROMPT_QKV_PASSES * shape.qkv
    )


def power_terms(
    job: InferenceJob, device: GpuHardware, step_s: float, first_s: float
) -> Iterator[Term]:
    """Mean watts of one GPU from the first prompt to the last answer, with decode steps of
    ``step_s`` after ``first_s`` for all prompts.
    """
    steps = max(1, job.answer - 1)
    cache = cache_bytes(job, mean_length(job))
    moved = (steps + job.batches) * read_bytes(job) + steps * cache
    computed = prefill_flops(job) + steps * decode_flops(job)
    yield Term("idle", device.idle_w)
    yield from _drawn_terms(job, computed, moved, first_s + steps * step_s)


def steady_power_terms(
    job: InferenceJob, device: GpuHardware, rate: float, token_s: float
) -> Iterator[Term]:
    """Likewise while requests come one by one, ``rate`` of them in a second, and each sequence gets
    a token every ``token_s``.
    """
    cache = cache_bytes(job, mean_length(job))
    prompts = min(1.0, rate * token_s)  # batches of them between two tokens
    moved = (1 + prompts) * read_bytes(job) + cache
    alone = job._replace(rows=1)
    computed = decode_flops(job) + rate * token_s * prefill_flops(alone)
    yield Term("idle", device.idle_w)
    yield from _drawn_terms(job, computed, moved, token_s)


def _drawn_terms(job: InferenceJob, flops: float, moved: float, seconds: float) -> Iterator[Term]:
    """The products of one row read the same weights with another kernel."""
    for term in activity_terms(flops, moved, seconds):
        several = term.name == "moved" and job.rows > 1
        yield term._replace(name="moved_rows") if several else term


def roofline_s(job: InferenceJob, device: GpuHardware) -> float:
    """The bare roofline of a decode step: bytes or arithmetic, whichever takes longer."""
    moved = (read_bytes(job) + cache_bytes(job, mean_length(job))) / device.memory_bytes_s
    return max(moved, decode_flops(job) / device.flops["bf16"])


def prefill_roofline_s(job: InferenceJob, device: GpuHardware) -> float:
    """Likewise, of all prompts."""
    return max(
        prefill_flops(job) / device.flops["bf16"],
        job.batches * read_bytes(job) / device.memory_bytes_s,
    )
