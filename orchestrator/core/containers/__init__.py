"""Containers: the wrapping of a node's processes, and the command lines of the engines. Pure.

Each engine is a record; :data:`ENGINES` is the registry, and all that is particular of an engine is
asked of its record.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.containers.docker_like import DOCKER, PODMAN
from orchestrator.core.containers.engine import ContainerEngine
from orchestrator.core.containers.file_images import APPTAINER, ENROOT
from orchestrator.core.model.container import ContainerSpec, Engine

__all__ = ["ENGINES", "ContainerEngine", "engine_of"]

ENGINES: Mapping[Engine, ContainerEngine] = {
    engine.name: engine for engine in (PODMAN, DOCKER, APPTAINER, ENROOT)
}


def engine_of(spec: ContainerSpec) -> ContainerEngine:
    """The engine that runs it: podman, where nobody says another."""
    return ENGINES[spec.engine or Engine.PODMAN]
