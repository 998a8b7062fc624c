"""The memory of GPUs: used up, or held by others."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    Rule,
    sign,
)

_SIZE = r"[\d.]{1,12} ?[KMGT]i?B"

RULES = (
    Rule(
        id="CUDA-OOM-001",
        title="Out of GPU memory",
        domain=Domain.PROGRAM,
        cause="{who} ran out of GPU memory ({asked})",
        remedy="a smaller micro-batch with more accumulation, gradient checkpointing, or more "
        "GPUs; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True against fragmentation",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("Cuda Runtime (out of memory)"),
            sign(
                "CUDA out of memory",
                rf"CUDA out of memory\.(?: (?P<asked>Tried to allocate {_SIZE}))?",
            ),
            sign("OutOfMemoryError", r"(?:torch|cuda|jax)[\w.]{0,40}\.OutOfMemoryError\b"),
            sign("OutOfMemoryError", r"^OutOfMemoryError: CUDA"),
            sign("HIP out of memory", r"(?P<asked>HIP out of memory)"),
            sign("out of memory", r"CUDA [eE]rror: out of memory"),
            sign("CUDA_ERROR_OUT_OF_MEMORY"),
            sign("out of memory", r"cuda runtime error \(2\) : out of memory"),
            sign("out of memory", r"cudaMalloc failed: out of memory"),
            sign("OOM when allocating tensor"),
            sign("Out of memory error on GPU", r"(?P<asked>Cannot allocate [\d.]{1,20}[KMG]?B)"),
            sign("out_of_memory", r"out_of_memory: (?P<asked>(?:RMM failure|CUDA error))"),
            sign("RESOURCE_EXHAUSTED", r"RESOURCE_EXHAUSTED: Out of memory"),
            sign("out of memory", r"(?:Cuda|CUDA|cuda) failure (?:\d{1,4} )?'out of memory'"),
            sign("out of memory", r"CUDA (?:runtime )?error in .{1,120}: out of memory"),
            sign("CUBLAS_STATUS_ALLOC_FAILED"),
        ),
        defaults={"asked": "CUDA out of memory"},
        references=("pytorch#118369",),
    ),
    Rule(
        id="CUDA-OOM-002",
        title="Another process holds the GPU's memory",
        domain=Domain.HOST,
        cause="process {pid} holds {held} of the GPU that {who} wanted to use",
        remedy="nvidia-smi on the node; orchestrate clean ends what its own runs left behind, "
        "orchestrate exec -C CLUSTER -- ps -o user,lstart,args -p PID says whose it is",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign(
                "CUDA out of memory",
                # In a container a process may not know itself in this list: only beside its own
                # share is it another that is named.
                r"CUDA out of memory.{0,300}? Process (?P<pid>\d{1,9}) has "
                r"(?P<held>[\d.]{1,12} ?[GT]i?B) memory in use.{0,200}this process has",
            ),
        ),
        defaults={"pid": "?", "held": "memory"},
        references=("pytorch: torch.OutOfMemoryError",),
    ),
    Rule(
        id="CUDA-OOM-003",
        title="Not enough GPU memory is free for vLLM",
        domain=Domain.HOST,
        cause="the GPU of {who} has less free memory than vLLM is set to take ({detail})",
        remedy="end what else uses the GPU (nvidia-smi), or lower gpu_memory_utilization or "
        "max_model_len",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "is less than desired GPU memory utilization",
                r"Free memory on device (?P<detail>.{1,120}?) is less than desired GPU",
            ),
            sign(
                "Error in memory profiling",
                r"(?P<detail>Error in memory profiling).{0,120}free memory",
            ),
        ),
        defaults={"detail": "see the line"},
        references=("vLLM",),
    ),
)
