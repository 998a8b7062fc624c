"""``--container`` and ``--container-engine``: the cluster with every node's container decided."""

from __future__ import annotations

from orchestrator.core.base.errors import UsageError
from orchestrator.core.containers.choosing import find_misuse, with_containers
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.workload import Workload


def contained_cluster(
    cluster: Cluster, workload: Workload, image: str, engine: str | None
) -> Cluster:
    """Raises :class:`UsageError` for an engine without an image, and an image that its engine
    cannot run.
    """
    decided = with_containers(cluster, workload.container, image, engine or "")
    contained = [node for node in decided.workers if node.container is not None]
    if engine and not contained:
        what = f"--container-engine {engine} was given, and no image"
        raise UsageError(what, id="run.container-engine", remedy="--container IMAGE")
    for node in contained:
        assert node.container is not None
        misuse = find_misuse(node.container)
        if misuse:
            named = f"{node.container.image[:80]!r} for {node.container.engine}"
            raise UsageError(f"the image {named} on {node.name}", id="run.container", why=misuse)
    return decided
