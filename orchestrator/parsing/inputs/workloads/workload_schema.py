"""The shape of a workload.yaml: strict types, units and meanings, no unknown keys."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from orchestrator.parsing.inputs.container_schema import Container
from orchestrator.parsing.inputs.validation import Strict
from orchestrator.parsing.inputs.workloads.condition_schema import RuleEntry
from orchestrator.parsing.inputs.workloads.prediction_schema import InferenceEntry, TrainingEntry
from orchestrator.parsing.inputs.workloads.schema_types import (
    FailureId,
    Help,
    InsidePath,
    Label,
    Module,
    Number,
    ParameterName,
    Value,
)


class RanksEntry(Strict):
    """How many ranks a node runs."""

    per: Literal["gpu", "node"] = Field(
        default="gpu", description="One rank per GPU, or one per node"
    )
    cpu: int = Field(default=1, ge=1, le=4096, description="Ranks on a node without GPUs")


class RequiresEntry(Strict):
    """What a node must offer."""

    modules: list[Module] = Field(default_factory=list, description="Python modules to import")
    requirements: InsidePath | None = Field(
        default=None, description="Requirements file in this folder that provides the modules"
    )
    min_nodes: int = Field(default=1, ge=1, description="Fewest nodes that make sense")


class ParameterEntry(Strict):
    """A typed parameter: `--name value` on the script's command line."""

    type: Literal["bool", "int", "float", "str", "choice"] = Field(description="Type of the value")
    default: Value = Field(description="Value when neither a preset nor --set gives one")
    unit: Help = Field(default="", description="Unit of the value, e.g. steps")
    help: Help = Field(default="", description="One line of meaning")
    choices: list[str] = Field(
        default_factory=list,
        description="Valid values of type choice; valid words besides the numbers of int and float",
    )
    min: Number | None = Field(default=None, description="Smallest value, inclusive (int, float)")
    max: Number | None = Field(default=None, description="Largest value, inclusive (int, float)")
    above: Number | None = Field(default=None, description="The value is larger (int, float)")
    below: Number | None = Field(default=None, description="The value is smaller (int, float)")
    multiple_of: int | None = Field(
        default=None, ge=2, description="The value is a multiple of this (int)"
    )
    pattern: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="Regular expression (Python's) that the whole value matches (str)",
    )
    form: Help = Field(
        default="", description="What pattern asks for, in words: expected FORM, found VALUE"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ParameterEntry:
        if self.type == "choice" and not self.choices:
            raise ValueError("type choice and a list of choices go together")
        if self.choices and self.type not in ("choice", "int", "float"):
            raise ValueError(f"choices do not apply to type {self.type}")
        bounds = (self.min, self.max, self.above, self.below)
        if self.type not in ("int", "float") and any(bound is not None for bound in bounds):
            raise ValueError(f"bounds do not apply to type {self.type}")
        self._check_pattern()
        if self.type != "int" and self.multiple_of is not None:
            raise ValueError(f"multiple_of does not apply to type {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def _check_pattern(self) -> None:
        if (self.pattern is None) != (not self.form):
            raise ValueError("pattern and form, which says it in words, go together")
        if self.pattern is None:
            return
        if self.type != "str":
            raise ValueError(f"pattern does not apply to type {self.type}")
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None


class GateEntry(Strict):
    """Inclusive bounds, in the metric's unit."""

    min: Number | None = Field(default=None, description="Smallest value that passes")
    max: Number | None = Field(default=None, description="Largest value that passes")

    @model_validator(mode="after")
    def _consistent(self) -> GateEntry:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class MetricEntry(Strict):
    """A figure that the workload reports."""

    unit: Help = Field(description="Unit, e.g. tok/s")
    direction: Literal["lower", "higher", "info"] = Field(
        default="info", description="Which way is better"
    )
    required: bool | None = Field(
        default=None, description="Missing = the run failed; default: true where there is a gate"
    )
    gate: GateEntry | None = Field(default=None, description="Bounds that the value must meet")
    terminal: bool = Field(
        default=True,
        description="Shown at a run's end; false = in its results and report only",
    )
    help: Help = Field(default="", description="One line of meaning")


class SamplesEntry(Strict):
    """What divisible work is divided into: names of parameters."""

    file: ParameterName = Field(
        description="A str parameter: JSONL file on the coordinator, one sample a line; "
        "empty = samples are generated by their numbers"
    )
    count: ParameterName = Field(
        description="An int parameter: how many samples; of a file at most that many, 0 = all"
    )
    group: ParameterName = Field(
        description="An int parameter: samples that are worked on together"
    )
    any_of: list[str] = Field(
        default_factory=list,
        description="Keys of which each line of the file has at least one; empty = any JSON value",
    )


class LoadEntry(Strict):
    """How MLPerf's load generator asks for the samples: names of parameters."""

    rules: ParameterName = Field(
        description="A choice: which rules it keeps; `none` = it is not used, all samples are "
        "there at once"
    )
    scenario: ParameterName = Field(
        description="A choice of offline, server, single-stream, multi-stream"
    )
    mode: ParameterName = Field(description="A choice of performance, accuracy")
    benchmark: ParameterName = Field(description="A choice: whose limits the rules use")
    target_qps: ParameterName = Field(
        description="A float: samples/s that are asked for or expected; 0 = from the warm-up"
    )
    min_duration: ParameterName = Field(
        description="A float: shortest test, in seconds; 0 = as the rules say"
    )
    answer: Label = Field(description="Key of an output that accuracy mode logs: token ids")
    score: Label | Literal[""] = Field(
        default="",
        description="Key of an output that says what the answer is worth in accuracy mode: numbers "
        "from 0 to 1 by their names",
    )


class WorkloadFile(Strict):
    """A workload: an ordinary script, what it takes, what it reports, what must come of it."""

    name: Label = Field(description="Workload name, as in --workload NAME")
    summary: Help = Field(default="", description="One line for lists")
    entry: InsidePath = Field(description="The Python script, relative to this folder")
    shape: Literal["rigid", "independent", "divisible", "local-rounds"] = Field(
        default="rigid",
        description="What may be done with the work when collectives between nodes fail; "
        "independent ranks never communicate",
    )
    combine: InsidePath | None = Field(
        default=None,
        description="A Python script, relative to this folder, that the coordinator runs on the "
        "outputs of several nodes: its metrics are those of the run",
    )
    samples: SamplesEntry | None = Field(
        default=None, description="What shape divisible divides; no other shape has it"
    )
    load: LoadEntry | None = Field(
        default=None, description="Who asks for the samples of shape divisible, and when"
    )
    training: TrainingEntry | None = Field(
        default=None, description="What time, memory and energy of a training are predicted from"
    )
    inference: InferenceEntry | None = Field(
        default=None, description="What rates, latencies and memory of inference are predicted from"
    )
    notice: Help = Field(default="", description="A line that stands on all results")
    begins_anew: bool = Field(
        default=False,
        description="Another attempt continues nothing of this one, such as a test of a load",
    )
    failures: dict[FailureId, Help] = Field(
        default_factory=dict,
        description="What to do about each failure that a rank may name in the last line that it "
        "writes, `ID: what happened`",
    )
    ranks: RanksEntry = Field(default_factory=RanksEntry, description="How many ranks a node runs")
    requires: RequiresEntry = Field(
        default_factory=RequiresEntry, description="What a node must offer"
    )
    container: Container | None = Field(default=None, description="What the ranks run in")
    default_preset: str | None = Field(
        default=None, description="Preset used when --set names none"
    )
    presets: dict[Label, dict[str, Value]] = Field(
        default_factory=dict, description="Preset name -> parameter values"
    )
    parameters: dict[ParameterName, ParameterEntry] = Field(
        default_factory=dict, description="Parameter name -> type, default, bounds, unit"
    )
    rules: list[RuleEntry] = Field(
        default_factory=list, description="Which parameters do not go together"
    )
    metrics: dict[Label, MetricEntry] = Field(
        default_factory=dict, description="Metric name -> unit, direction, gate"
    )
    artifacts: list[InsidePath] = Field(
        default_factory=list, description="Names that must exist in the output at the end"
    )

    @model_validator(mode="after")
    def _consistent(self) -> WorkloadFile:
        if (self.shape == "divisible") != (self.samples is not None):
            raise ValueError("shape divisible and the section samples go together")
        if self.load is not None and self.samples is None:
            raise ValueError("the section load needs the section samples")
        return self
