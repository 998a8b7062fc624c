"""What engines say when they cannot run an image, and what to do about it. Pure."""

from __future__ import annotations

import re

from orchestrator.core.base.problem import Problem
from orchestrator.core.containers import engine_of
from orchestrator.core.containers.engine import ContainerEngine
from orchestrator.core.model.container import ContainerSpec

MISSING, IMAGE, USERS, DAEMON, GPUS, PYTHON, MOUNT, OTHER, ALIAS = (
    f"OR-CONTAINER-{number:03}" for number in (1, 2, 4, 5, 6, 7, 8, 9, 10)
)
# The first that is found tells; later ones are what an earlier one can lead to.
SIGNS = (
    (ALIAS, r"^docker: it is podman by another name"),
    (MISSING, r": not installed on this node"),
    (USERS, r"subuid|subgid|newuidmap|newgidmap|not be enough IDs"),
    (DAEMON, r"connect to the Docker daemon|docker\.sock"),
    (GPUS, r"nvidia\.com/gpu|CDI device|could not select device driver|nvidia-container-cli"),
    (MOUNT, r"statfs /|bind source path does not exist|mount source:? .*: no such file"),
    (PYTHON, r"no working Python|executable file .*not found|no such file or directory: OCI"),
    (IMAGE, r"initializing source|pull access denied|manifest unknown|unauthorized|no such image"),
    (IMAGE, r"pinging container registry|image not known|no such file|short-name|dial tcp"),
)


def explain_error(spec: ContainerSpec, message: str) -> Problem:
    """What ``message``, an engine's own words on a node, means to the user."""
    id = next((id for id, sign in SIGNS if re.search(sign, message, re.IGNORECASE)), OTHER)
    return Problem(id=id, message=message, remedy=_remedy(id, engine_of(spec), spec.image))


def _remedy(id: str, engine: ContainerEngine, image: str) -> str:
    name = engine.name.value
    if id == MISSING:
        return f"install {name} there, or choose another engine: --container-engine"
    if id == ALIAS:
        return "--container-engine podman"
    if id == USERS:
        ranges = "--add-subuids 100000-165535 --add-subgids 100000-165535"
        return f"as root on that node: usermod {ranges} USER; then: podman system migrate"
    if id == DAEMON:
        start = "systemctl start docker, and usermod --append --groups docker USER"
        return f"as root on that node: {start}; or --container-engine podman"
    if id == GPUS:
        return engine.gpu_remedy
    if id == PYTHON:
        return (
            "choose an image with Python 3.8 or newer, and name it in the inventory: python: PATH"
        )
    if id == MOUNT:
        return "make that folder on the node, or leave it out of the container's mounts"
    if id == IMAGE and engine.keeps:
        return f"on that node: {name} pull {image} (with {name} login before), or {name} load"
    if id == IMAGE:
        return f"put {image} there, on a disk that all nodes share or on each"
    return f"check mounts and options of the container, and what {name} run {image} says there"
