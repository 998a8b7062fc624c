"""What a run is asked to record of its GPUs, beside what its workload reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.base.wire_names import wire

PROFILE_S, PROFILE_AFTER_S = 5.0, 30.0  # unless others are asked for
PROFILED_NODES = 2  # the first ones of a plan; of each its first rank


class CaptureKind(StrEnum):
    """``profile`` is taken by the ranks; everything else is sampled beside them on each node."""

    POWER = "power"
    CLOCKS = "clocks"
    MEMORY = "memory"
    NVLINK = "nvlink"
    PROFILE = "profile"


@wire("Capture")
@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One thing to record. Of a profile: for how many ``seconds``, and how many seconds after the
    rank's first step; both 0 for what is sampled from the launch to the end.
    """

    kind: CaptureKind
    seconds: float = 0.0
    after_s: float = 0.0

    @property
    def text(self) -> str:
        """As ``--capture`` reads it."""
        if self.kind is not CaptureKind.PROFILE:
            return self.kind.value
        return f"{self.kind.value}={self.seconds:g}@{self.after_s:g}"
