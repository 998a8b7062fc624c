"""Points that `scripts/gpu_check model` measured: JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.core.base.errors import UsageError
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.inference_step import InferenceJob
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.training_step import TrainingJob

MAX_POINTS = 10_000
Whole = Annotated[int, Field(ge=0, le=1 << 24)]
Measured = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
FIGURES = ("step_s", "first_token_s", "tokens_per_s", "peak_bytes", "watts")


class PointLine(BaseModel):
    """One line; what else it has is not needed here. ``error``: it could not be measured."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    kind: Literal["finetune", "inference", "eager"]
    shape: str = Field(max_length=200)
    tied: bool = False
    device: str = Field(max_length=200)
    batch: Whole
    sequence: Whole
    gpus: Whole = 1
    accumulation: Whole = 1
    answer: Whole = 0
    lora_rank: Whole = 0
    text: Whole = 0
    targets: Annotated[float, Field(gt=0, le=1)] = 1.0
    held_out: bool = False
    error: str = ""
    step_s: Measured | None = None
    first_token_s: Measured | None = None
    tokens_per_s: Measured | None = None
    peak_bytes: Measured | None = None
    watts: Measured | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What was measured."""
        named = {name: getattr(self, name) for name in FIGURES}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def label(self) -> str:
        """For people."""
        each = f" x {self.accumulation}" if self.accumulation > 1 else ""
        packed = f" of texts of {self.text}" if self.text else ""
        size = f"{self.batch} x {self.sequence}{packed}{each}"
        return f"{self.kind} {self.shape} {size}, {self.gpus} GPU"

    def job(self, shape_of: Callable[[str], ModelShape]) -> TrainingJob | InferenceJob:
        """What was done."""
        shape = shape_of(self.shape)
        if self.kind != "finetune":
            program = EagerJob if self.kind == "eager" else InferenceJob
            return program(shape=shape, rows=self.batch, prompt=self.sequence, answer=self.answer)
        return TrainingJob(
            shape=shape,
            rows=self.batch,
            sequence=self.sequence,
            accumulation=self.accumulation,
            gpus=self.gpus,
            rank=self.lora_rank,
            text=self.text,
            targets=self.targets,
        )


def load_points(data: bytes, source: str) -> Iterator[PointLine]:
    """Those that were measured. Raises :class:`UsageError` with file and line."""
    for number, line in enumerate(data.splitlines()[:MAX_POINTS], start=1):
        if not line.strip():
            continue
        try:
            point = PointLine.model_validate(json.loads(line))
        except (ValueError, RecursionError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
            raise UsageError(
                f"not a measured point: {what}",
                id="model.points",
                where=f"{source}:{number}",
                remedy="scripts/gpu_check model writes such a file",
            ) from None
        if not point.error:
            yield point
