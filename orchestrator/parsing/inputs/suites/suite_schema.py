"""The keys of a suite's file.

name: smoke
summary: What every checkout can do without a GPU
steps:
  - name: sleep
    workload: sleep
    parameters: {lines: 20}
    limit_s: 120
  - name: profile
    workload: finetune
    after: [sleep]
    optional: true
    captures: [profile=10@5]
    requires: {gpus: 1, tools: [nsys]}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.core.suite.suite_model import DEFAULT_LIMIT_S
from orchestrator.parsing.inputs.validation import Strict

MAX_STEPS = 100
NAME = r"^[a-z0-9][a-z0-9_-]{0,39}$"
Value = bool | int | float | str
Word = Annotated[str, Field(min_length=1, max_length=200)]


class StepNeedsEntry(Strict):
    """What a step cannot run without. Counts are over the cluster, memory is that of each."""

    nodes: int = Field(default=0, ge=0, le=65536)
    gpus: int = Field(default=0, ge=0, le=65536)
    gpu_memory_gib: float = Field(default=0.0, ge=0, le=65536)
    memory_gib: float = Field(default=0.0, ge=0, le=1 << 20)
    tools: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}$")]] = Field(
        default_factory=list, max_length=20
    )
    packages: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]] = Field(
        default_factory=list, max_length=20
    )


class StepEntry(Strict):
    """One run of a workload. ``optional``: left out, with the reason, where a requirement is
    missing; a step that is not optional fails there. ``after``: steps that are over before.
    """

    name: str = Field(pattern=NAME)
    workload: Word
    preset: Word | None = None
    parameters: dict[str, Value] = Field(default_factory=dict)
    captures: list[Word] = Field(default_factory=list, max_length=20)
    optional: bool = False
    after: list[str] = Field(default_factory=list, max_length=MAX_STEPS)
    requires: StepNeedsEntry = StepNeedsEntry()
    limit_s: float = Field(DEFAULT_LIMIT_S, ge=1, le=31 * 86400)
    why: str = Field("", max_length=500)


class SuiteFile(Strict):
    """The whole file."""

    name: str = Field(pattern=NAME)
    summary: str = Field("", max_length=500)
    steps: list[StepEntry] = Field(min_length=1, max_length=MAX_STEPS)
