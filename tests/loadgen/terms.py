"""How a test asks: by the official rules and by the short ones."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.model.load import LoadMode, LoadTerms, Scenario

OFFICIAL = LoadTerms(
    rules="official",
    scenario=Scenario.SERVER,
    mode=LoadMode.PERFORMANCE,
    benchmark="llama3_1-8b",
    target_qps=0.0,
    min_duration_s=0.0,
    answer="tokens",
)
SHORT = replace(OFFICIAL, rules="short")
