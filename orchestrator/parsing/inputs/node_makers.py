"""Launchers that make the nodes: what they put in the place of the inventory's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.core.launchers.kubernetes import KUBERNETES
from orchestrator.core.model.inventory import Cluster
from orchestrator.parsing.inputs.pods.pod_cluster import podded_cluster

# From the cluster, the words that are passed on to the launcher, and the id of the run.
MakeNodes = Callable[[Cluster, Sequence[str], str], Cluster]
MAKERS: Mapping[str, MakeNodes] = {KUBERNETES.name: podded_cluster}


def made_by(launcher: str) -> bool:
    """Whether that launcher makes the nodes."""
    return launcher in MAKERS


def made_cluster(launcher: str, cluster: Cluster, options: Sequence[str], run_id: str) -> Cluster:
    """The cluster as the launcher makes it; most take it as it is. Raises :class:`UsageError`."""
    make = MAKERS.get(launcher)
    return cluster if make is None else make(cluster, options, run_id)
