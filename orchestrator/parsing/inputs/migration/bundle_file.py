"""What a bundle says of its steps and machines; it may come from anywhere and is not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from orchestrator.core.migration.evidence import Machine
from orchestrator.parsing.inputs.validation import Strict

MAX_STEPS, MAX_NODES, MAX_GPUS = 1000, 4096, 256

Text = Annotated[str, Field(max_length=1000)]
StepName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
RunId = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$")]


class BundledStepEntry(Strict):
    """A step; ``run`` is empty where it did not run."""

    state: Text
    reason: Text
    run: RunId


class BundleAbout(Strict):
    """``about`` of the manifest."""

    playbook: Text
    suite: Text
    cluster: Text
    nodes: Text
    project: Text
    steps: dict[StepName, BundledStepEntry] = Field(max_length=MAX_STEPS)


class MachineEntry(Strict):
    """A node."""

    node: Text
    gpus: Annotated[list[Text], Field(max_length=MAX_GPUS)] | None
    driver: Text
    cuda: Text
    kernel: Text
    modules: Annotated[dict[Text, Text], Field(max_length=1000)]


class MachinesFile(Strict):
    """``machines.json``."""

    machines: Annotated[list[MachineEntry], Field(max_length=MAX_NODES)]


def parse_about(about: Mapping[str, Any]) -> BundleAbout:
    """Raises ``ValueError``."""
    try:
        return BundleAbout.model_validate(dict(about))
    except ValidationError as error:
        raise ValueError("its manifest is not one of a migration") from error


def parse_machines(content: bytes) -> tuple[Machine, ...]:
    """Raises ``ValueError``."""
    try:
        file = MachinesFile.model_validate(json.loads(content))
    except (ValidationError, RecursionError) as error:
        raise ValueError("its machines are not described as bundles do") from error
    return tuple(
        Machine(
            node=entry.node,
            gpus=None if entry.gpus is None else tuple(entry.gpus),
            driver=entry.driver,
            cuda=entry.cuda,
            kernel=entry.kernel,
            modules=entry.modules,
        )
        for entry in file.machines
    )
