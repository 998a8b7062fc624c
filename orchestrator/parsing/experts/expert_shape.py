"""Numbers by layer and expert out of arrays: bounded, and along the right axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.core.monitoring.expert_load import ExpertTable, added_up

MAX_LAYERS, MAX_EXPERTS, MAX_STEPS = 1024, 8192, 1 << 20
MAX_WINDOWS = 64


class BadExpertFile(ValueError):
    """What is wrong with a file or an answer, and where."""


def table_from_steps(source: str, steps: np.ndarray, what: str) -> ExpertTable:
    """``steps``: tokens by step, layer and expert (or by layer and expert). Steps are added up into
    at most ``MAX_WINDOWS`` windows.

    Raises :class:`BadExpertFile` for another shape, and for counts that are negative or not finite.
    """
    if steps.ndim == 2:
        steps = steps[np.newaxis]
    if steps.ndim != 3 or not all(steps.shape):
        shape = "x".join(map(str, steps.shape))
        raise BadExpertFile(f"{what} has the shape {shape}; expected steps x layers x experts")
    if any(
        n > most for n, most in zip(steps.shape, (MAX_STEPS, MAX_LAYERS, MAX_EXPERTS), strict=True)
    ):
        raise BadExpertFile(f"{what} is too large: {steps.shape}")
    parts = np.array_split(steps, min(MAX_WINDOWS, len(steps)))
    windows = [part.sum(axis=0, dtype=np.float64) for part in parts]
    if not all(np.isfinite(window).all() and (window >= 0).all() for window in windows):
        raise BadExpertFile(f"{what} has counts that are negative or no numbers")
    rows = tuple(tuple(tuple(map(float, layer)) for layer in window) for window in windows)
    return ExpertTable(
        source=source,
        layers=tuple(str(layer) for layer in range(steps.shape[1])),
        counts=added_up(rows),
        windows=rows if len(rows) > 1 else (),
    )


def checked_counts(given: object, what: str) -> tuple[float, ...]:
    """A list of counts. Raises :class:`BadExpertFile`."""
    if (
        not isinstance(given, Sequence)
        or isinstance(given, str)
        or not 0 < len(given) <= MAX_EXPERTS
    ):
        raise BadExpertFile(f"{what}: expected a list of 1 to {MAX_EXPERTS} counts")
    for count in given:
        number = isinstance(count, int | float) and not isinstance(count, bool)
        if not number or not math.isfinite(count) or count < 0:
            raise BadExpertFile(f"{what}: {str(count)[:40]!r} is no count")
    return tuple(float(count) for count in given)
