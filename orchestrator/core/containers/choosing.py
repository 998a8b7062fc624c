"""Which container the ranks of a node get, by what was typed and what is declared. Pure."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.containers import engine_of
from orchestrator.core.model.container import ContainerSpec, Engine
from orchestrator.core.model.inventory import Cluster

NONE = "none"
NOTHING = ContainerSpec()


def with_containers(
    cluster: Cluster, declared: ContainerSpec | None, image: str, engine: str
) -> Cluster:
    """``cluster`` with the container of every node decided. ``declared`` is the workload's;
    ``image`` (``none``: no container) and ``engine`` were typed, "" = they were not.
    """
    nodes = (
        replace(node, container=choose_container(node.container, declared, image, engine))
        for node in cluster.nodes
    )
    return replace(cluster, nodes=tuple(nodes))


def choose_container(
    node: ContainerSpec | None, workload: ContainerSpec | None, image: str, engine: str
) -> ContainerSpec | None:
    """The workload knows best what it needs, the node how it runs containers; None = there is no
    image, hence no container. Of mounts at the same place the node's counts.
    """
    node, workload = node or NOTHING, workload or NOTHING
    chosen = image or workload.image or node.image
    if chosen in ("", NONE):
        return None
    mounts = {mount.target: mount for mount in (*workload.mounts, *node.mounts)}
    typed = Engine(engine) if engine else None
    return ContainerSpec(
        image=chosen,
        engine=typed or node.engine or workload.engine or Engine.PODMAN,
        mounts=tuple(mounts.values()),
        options=(*node.options, *workload.options),
    )


def find_misuse(spec: ContainerSpec) -> str:
    """Why its engine cannot run its image, or ""."""
    image = spec.image
    if not image.isprintable() or not image.strip() or " " in image or image.startswith("-"):
        return "not the name of an image"
    return engine_of(spec).find_misuse(spec.image)
