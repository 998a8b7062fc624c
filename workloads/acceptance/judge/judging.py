"""From what every rank measured to figures with verdicts. Pure."""

from __future__ import annotations

from .collective_measurements import collective_measurements
from .concurrency_measurements import concurrency_measurements
from .evidence import Evidence
from .hardware_measurements import hardware_measurements
from .health_measurements import health_measurements
from .measurements import Measurement
from .training_measurements import training_measurements


def judge_evidence(evidence: Evidence) -> list[Measurement]:
    """Every figure that the test has, measured or not."""
    return [
        *hardware_measurements(evidence),
        *collective_measurements(evidence),
        *concurrency_measurements(evidence),
        *training_measurements(evidence),
        *health_measurements(evidence),
    ]
