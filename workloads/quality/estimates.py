"""Perplexity and accuracy with their statistical error. Pure; standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrate_models.repeats import Z


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure, its standard error, and the interval that holds it with 95 %. ``error`` None: one
    text alone says nothing of how texts differ.
    """

    value: float
    error: float | None
    low: float | None
    high: float | None
    count: int


def perplexity(nats: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Of texts with these sums of negative log-likelihoods over these numbers of tokens.

    The mean over tokens is a ratio of two sums over texts, and texts are what was drawn: tokens of
    one text are alike. Its error is that of a ratio estimator (Cochran, Sampling Techniques, 1977,
    section 6.4); the interval is made in nats and then raised, so that it stays above 0. Raises
    ``ValueError`` for no tokens.
    """
    total = sum(tokens)
    if not total:
        raise ValueError("no token to predict")
    mean = math.fsum(nats) / total
    value = math.exp(mean)
    count = len(nats)
    if count < 2:
        return Estimate(value=value, error=None, low=None, high=None, count=count)
    squares = math.fsum((x - mean * n) ** 2 for x, n in zip(nats, tokens, strict=True))
    error = math.sqrt(count / (count - 1) * squares) / total
    return Estimate(
        value=value,
        error=value * error,
        low=math.exp(mean - Z * error),
        high=math.exp(mean + Z * error),
        count=count,
    )


def accuracy(right: int, count: int) -> Estimate:
    """A part of ``count`` questions, with Wilson's interval (1927), which holds near 0 and 1 too.
    Raises ``ValueError`` for none.
    """
    if not 0 <= right <= count or not count:
        raise ValueError(f"{right} of {count} questions")
    part = right / count
    middle = (part + Z**2 / (2 * count)) / (1 + Z**2 / count)
    spread = part * (1 - part) / count + Z**2 / (4 * count**2)
    half = Z / (1 + Z**2 / count) * math.sqrt(spread)
    return Estimate(
        value=part,
        error=math.sqrt(part * (1 - part) / count),
        low=max(0.0, middle - half),
        high=min(1.0, middle + half),
        count=count,
    )
