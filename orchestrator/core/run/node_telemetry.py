"""What a node's sampler reads of its GPUs while ranks run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.wire_names import wire


@wire("TelemetryRead")
@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryRead:
    """The newest readings, of all GPUs of the job on the node together; None = not captured, or not
    known of each. Not journaled: only the latest one matters.

    Bytes over NVLink count since the driver was loaded; ``temperature_c``: of the hottest one;
    ``throttled``: how many are held down by what, ``thermal`` or ``power``.
    """

    node: str
    watts: float | None = None
    temperature_c: float | None = None
    memory_used_bytes: float | None = None
    nvlink_sent_bytes: float | None = None
    nvlink_received_bytes: float | None = None
    throttled: Mapping[str, float] = field(default_factory=dict)
