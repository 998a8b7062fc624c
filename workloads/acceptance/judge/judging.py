"""From what every rank measured to figures with verdicts. Pure."""

from __future__ import annotations

from .collective_figures import collective_figures
from .evidence import Evidence
from .figures import Figure
from .hardware_figures import hardware_figures
from .health_figures import health_figures
from .training_figures import training_figures


def figures(evidence: Evidence) -> list[Figure]:
    """Every figure that the test has, measured or not."""
    return [
        *hardware_figures(evidence),
        *collective_figures(evidence),
        *training_figures(evidence),
        *health_figures(evidence),
    ]
