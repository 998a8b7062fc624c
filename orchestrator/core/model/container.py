"""Containers that ranks run in: what is declared of them, and what a node has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.base.wire_names import wire


class Engine(StrEnum):
    """What runs containers on a node."""

    PODMAN = "podman"
    DOCKER = "docker"
    APPTAINER = "apptainer"
    ENROOT = "enroot"


@wire("Mount")
@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """``source``, an absolute path on the node, is seen at ``target`` in the container."""

    source: str
    target: str
    read_only: bool = False


@wire("ContainerSpec")
@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What is declared. ``image`` ``""`` and ``engine`` None are decided elsewhere; ``options`` go
    to the engine as they are, behind those of the plan.
    """

    image: str = ""
    engine: Engine | None = None
    mounts: tuple[Mount, ...] = ()
    options: tuple[str, ...] = ()


@wire("ContainerImage")
@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerImage:
    """What a node has: ``reference`` names the image to its engine and cannot become another one
    meanwhile; ``digest`` is of its content, ``program`` the engine's path.
    """

    reference: str
    digest: str
    program: str
