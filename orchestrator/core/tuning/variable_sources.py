"""Where variables come from, and where they are documented."""

from __future__ import annotations

from orchestrator.core.model.plan import Variable

USER, FACTS, LAUNCHER, FILE = "user", "facts", "launcher", "nccl.conf"

_NCCL = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html"
_NCCL_TROUBLE = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"
_TORCH = "https://docs.pytorch.org/docs/stable/torch_nccl_environment_variables.html"
_TORCHRUN = "https://docs.pytorch.org/docs/stable/elastic/run.html"
_GLOO = "https://docs.pytorch.org/docs/stable/distributed.html#common-environment-variables"
_CUDA = (
    "https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables"
)


def reference_url(name: str) -> str:
    """Where ``name`` is documented; "" if nowhere that we know of."""
    if name.startswith("NCCL_"):
        return f"{_NCCL}#{name.lower().replace('_', '-')}"
    if name.startswith("TORCH_"):
        return _TORCH
    if name.startswith("GLOO_"):
        return _GLOO
    if name.startswith("CUDA_"):
        return _CUDA
    return _TORCHRUN if name == "OMP_NUM_THREADS" else ""


def derived_variable(name: str, value: str, rule: str, reason: str, evidence: str = "") -> Variable:
    """A variable that follows from facts."""
    return Variable(
        name=name,
        value=value,
        origin=FACTS,
        reason=reason,
        rule=rule,
        evidence=evidence,
        reference=reference_url(name),
    )


def untouched_variable(name: str, rule: str, reason: str, evidence: str = "") -> Variable:
    """A variable that is left alone on purpose."""
    return derived_variable(name, "", rule, reason, evidence)
