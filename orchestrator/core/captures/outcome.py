"""What came of each capture that a run was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.base.wire_names import wire


class CaptureState(StrEnum):
    """``partial``: of some nodes only, or cut short."""

    CAPTURED = "captured"
    PARTIAL = "partial"
    MISSING = "missing"


@wire("CaptureResult")
@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureResult:
    """One capture over all nodes. ``reasons``: ``node: why`` for what is missing or cut short.

    ``figures`` are its main ones, in the units that their names end with; ``summary`` is a path in
    the run's folder, beside the data or with the paths to them.
    """

    kind: str
    state: CaptureState
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""


def judge_capture(missing: Mapping[str, str], trouble: Mapping[str, str]) -> CaptureState:
    """From node -> why, an empty text where there is nothing to say."""
    if all(missing.values()):
        return CaptureState.MISSING
    some = any(missing.values()) or any(trouble.values())
    return CaptureState.PARTIAL if some else CaptureState.CAPTURED
