"""Metrics of mixtures of experts: five series a layer, however many experts it has."""

from __future__ import annotations

from orchestrator.core.monitoring.metric import MetricFamily

LAYER = ("run", "layer")

EXPERT_GINI = MetricFamily(
    name="orchestrate_moe_load_gini_ratio",
    labels=LAYER,
    help="Gini coefficient of the tokens of the layer's experts; 0 = all alike.",
)
EXPERT_MAX = MetricFamily(
    name="orchestrate_moe_load_max_to_mean_ratio",
    labels=LAYER,
    help="Tokens of the layer's busiest expert by those of the mean one; 1 = all alike.",
)
EXPERT_CV = MetricFamily(
    name="orchestrate_moe_load_variation_ratio",
    labels=LAYER,
    help="Coefficient of variation of the tokens of the layer's experts; 0 = all alike.",
)
EXPERT_DEAD = MetricFamily(
    name="orchestrate_moe_dead_experts_ratio",
    labels=LAYER,
    help="Part of the layer's experts that got no token.",
)
EXPERT_EFFECTIVE = MetricFamily(
    name="orchestrate_moe_effective_experts_ratio",
    labels=LAYER,
    help="Experts that the layer's routing amounts to, exp(entropy), by their number; 1 = all.",
)

EXPERT_METRICS = (EXPERT_GINI, EXPERT_MAX, EXPERT_CV, EXPERT_DEAD, EXPERT_EFFECTIVE)
