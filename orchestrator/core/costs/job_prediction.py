"""What is said of a planned run before it begins; how it is computed is left apart, since a plan
without GPUs needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.plan import NodePlan, Plan


class NotPredicted(ValueError):
    """Why nothing can be said of a run; the message names what is missing."""


@wire("PredictedFigure")
@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedFigure:
    """A figure's most likely value, and bounds that hold it in 90 % of runs."""

    value: float
    low: float
    high: float
    unit: str


@wire("JobPrediction")
@dataclass(frozen=True, slots=True, kw_only=True)
class JobPrediction:
    """What a planned run will take. ``basis``: what was measured before; ``without``: why there are
    no figures.
    """

    figures: Mapping[str, PredictedFigure]
    basis: str = ""
    without: str = ""


def used_gpus(plan: Plan, cluster: Cluster, facts: Mapping[str, Facts]) -> frozenset[str]:
    """The names of the plan's GPUs: by what was probed, else by the inventory. Raises
    :class:`NotPredicted` where there are none.
    """
    names = {name for share in plan.nodes for name in _gpu_names(share, cluster, facts)}
    if not names:
        raise NotPredicted("no GPU is used, or its kind is not known")
    return frozenset(names)


def _gpu_names(share: NodePlan, cluster: Cluster, facts: Mapping[str, Facts]) -> Iterator[str]:
    if share.name in facts:
        used = set(share.gpus)
        yield from (gpu.name for gpu in facts[share.name].gpus if gpu.index in used)
    elif share.gpus or cluster.node(share.name).gpus.type:
        yield from filter(None, [cluster.node(share.name).gpus.type])
