"""All checks, in the order in which people read them. Their ids never change their meaning."""

from __future__ import annotations

from orchestrator.core.doctor.check_model import Check
from orchestrator.core.doctor.rules import alike, gpu_evidence, gpus, host, links, repeats, rising
from orchestrator.core.doctor.rules import hcas as adapters

CHECKS: tuple[Check, ...] = (
    *host.CHECKS,
    *gpus.CHECKS,
    *gpu_evidence.CHECKS,
    *adapters.CHECKS,
    *links.CHECKS,
    *alike.CHECKS,
    *rising.CHECKS,
    *repeats.CHECKS,
)
