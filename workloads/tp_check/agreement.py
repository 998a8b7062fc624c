"""How far two sets of logits are apart, and what rounding explains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# rtol of torch.testing.assert_close by type (torch/testing/_comparison.py, _DTYPE_PRECISIONS).
RELATIVE_TOLERANCE = {"fp32": 1.3e-6, "bf16": 1.6e-2, "fp16": 1e-3}
# Rows of logits that are compared at a time.
ROWS = 256


def tolerance(precision: str, layers: int) -> float:
    """Relative error that rounding explains in a model of so many layers.

    PyTorch's tolerance of one operation, times the root of the number of layers: roundings that do
    not depend on each other add up as a random walk does (Higham and Mary, SIAM J. Sci. Comput.
    41(5), 2019). On H200s Qwen2-7B's shape in bf16 uses 0.25 of it at TP=2.
    """
    return RELATIVE_TOLERANCE[precision] * math.sqrt(layers)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of logits beside a reference; all are (positions, vocabulary).

    - ``relative_error``: norm of the difference by the norm of the reference.
    - ``largest_error``: largest difference of a logit.
    - ``top1_agreement``: part of the positions where the largest logit is the same one.
    - ``top1_wrong``: positions where it is another one, although the reference prefers its own by
      more than twice the largest difference there: no rounding explains that.
    - ``kl``: mean over positions of the divergence of the distributions, reference first, in nats.
    """

    positions: int
    relative_error: float
    largest_error: float
    top1_agreement: float
    top1_wrong: int
    kl: float


def compare(reference: torch.Tensor, logits: torch.Tensor) -> Agreement:
    """In double precision, a block of rows at a time. Raises ``ValueError`` for unlike shapes and
    for logits that are not finite.
    """
    if reference.shape != logits.shape:
        raise ValueError(f"logits of {tuple(reference.shape)} beside {tuple(logits.shape)}")
    square = distance = kl = largest = 0.0
    same = wrong = 0
    blocks = zip(reference.split(ROWS), logits.split(ROWS), strict=True)
    for expected, found in ((a.double(), b.double()) for a, b in blocks):
        difference = (found - expected).abs()
        square += expected.square().sum().item()
        distance += difference.square().sum().item()
        largest = max(largest, difference.max().item())
        kl += divergence(expected, found)
        agree = expected.argmax(dim=-1) == found.argmax(dim=-1)
        same += int(agree.sum().item())
        wrong += int((~agree & _decided(expected, difference)).sum().item())
    if not (math.isfinite(square) and math.isfinite(distance)):
        raise ValueError("the logits are not finite")
    return Agreement(
        positions=len(reference),
        relative_error=(distance / square) ** 0.5,
        largest_error=largest,
        top1_agreement=same / len(reference),
        top1_wrong=wrong,
        kl=kl / len(reference),
    )


def divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Sum over rows of the Kullback-Leibler divergence of the softmax of ``found`` from that of
    ``expected``, in nats; below 0 only by rounding, and then 0.
    """
    log_p, log_q = expected.log_softmax(dim=-1), found.log_softmax(dim=-1)
    return float((log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp(min=0).sum().item())


def _decided(expected: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """Rows whose two largest logits are further apart than both could have moved."""
    first, second = expected.topk(2, dim=-1).values.unbind(dim=-1)
    return first - second > 2 * difference.amax(dim=-1)
