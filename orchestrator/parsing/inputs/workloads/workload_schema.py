"""The shape of a workload.yaml: strict types, units and meanings, no unknown keys."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from orchestrator.core.verdict.last_words import FAILURE_ID
from orchestrator.parsing.inputs.validation import Strict, describe_value

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def _check_label(text: str) -> str:
    if not _LABEL.fullmatch(text) or len(text) > 128:
        raise ValueError(f"not a plain name (letters, digits, . _ -): {text[:80]!r}")
    return text


def _parameter_name(text: str) -> str:
    if not _PARAMETER.fullmatch(text) or text == "preset" or text.startswith("no_"):
        what = "lower-case letters, digits and _, not `preset`, not starting with no_"
        raise ValueError(f"not a parameter name ({what}): {text[:80]!r}")
    return text


def _check_module(text: str) -> str:
    if not _MODULE.fullmatch(text):
        raise ValueError(f"not a Python module name: {text[:80]!r}")
    return text


def _check_printable(text: str) -> str:
    if _CONTROL.search(text.replace("\n", " ").replace("\t", " ")):
        raise ValueError("holds a control character")
    return text


def _check_failure_id(text: str) -> str:
    if not FAILURE_ID.fullmatch(text):
        raise ValueError(f"not an id of a failure, such as MY-MODEL-001: {text[:80]!r}")
    return text


def _check_inside(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or text.startswith("-"):
        raise ValueError(f"{text!r} must be a path inside the workload's folder")
    if _CONTROL.search(text):
        raise ValueError("holds a control character")
    return text


Label = Annotated[str, AfterValidator(_check_label)]
ParameterName = Annotated[str, AfterValidator(_parameter_name)]
Module = Annotated[str, AfterValidator(_check_module)]
InsidePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_inside)]
FailureId = Annotated[str, AfterValidator(_check_failure_id)]
Help = Annotated[str, Field(max_length=2000), AfterValidator(_check_printable)]
Number = Annotated[float, Field(allow_inf_nan=False)]
# Left to right keeps 3 a whole number and true a truth value: the types are strict.
Value = bool | int | Number | str


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


def _check_value(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"expected text, a number, true or false, found {describe_value(value)}")


def _check_bound(value: Any) -> Any:
    if isinstance(value, str):
        return _parameter_name(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"expected a number or a parameter's name, found {describe_value(value)}")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _normalise_condition(value: Any) -> Any:
    return value if isinstance(value, dict) else {"any_of": value}


# One problem for what is none of the types, instead of one for each of them.
AnyValue = Annotated[Any, PlainValidator(_check_value, json_schema_input_type=Value)]
Values = Annotated[
    list[AnyValue],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=Value | list[Value]),
]
Bound = Annotated[Any, PlainValidator(_check_bound, json_schema_input_type=Number | str)]


class ConditionEntry(Strict):
    """What a value is to be: all of this. A value or a list L is short for {any_of: L}."""

    any_of: Values | None = Field(default=None, description="It is one of these")
    none_of: Values | None = Field(default=None, alias="not", description="It is none of these")
    min: Bound | None = Field(
        default=None, description="It is at least this number, or the parameter of this name"
    )
    max: Bound | None = Field(
        default=None, description="It is at most this number, or the parameter of this name"
    )

    @model_validator(mode="after")
    def _some(self) -> ConditionEntry:
        if not self.model_fields_set:
            raise ValueError("a condition needs any_of, not, min or max")
        return self


Conditions = dict[
    ParameterName,
    Annotated[
        ConditionEntry,
        BeforeValidator(
            _normalise_condition, json_schema_input_type=Value | list[Value] | ConditionEntry
        ),
    ],
]


class RuleEntry(Strict):
    """Parameters that do not go together otherwise; found before anything is contacted."""

    when: Conditions = Field(
        default_factory=dict, description="Parameter name -> value; the rule is for where all hold"
    )
    require: Conditions = Field(
        min_length=1, description="Parameter name -> value; all of these have to hold then"
    )
    why: Help = Field(min_length=1, description="The reason, shown to the user who breaks the rule")

    @model_validator(mode="after")
    def _about_two(self) -> RuleEntry:
        both = sorted(self.when.keys() & self.require.keys())
        if both:
            raise ValueError(f"{both[0]} is in both when and require")
        bounds = [bound for item in self.require.values() for bound in (item.min, item.max)]
        if not self.when and not any(isinstance(bound, str) for bound in bounds):
            raise ValueError(
                "without when, require compares parameters, as in {most: {min: least}}; "
                "what holds for one alone is declared there"
            )
        return self


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


class TrainingEntry(Strict):
    """What a step of LoRA training is, for predictions: names of parameters."""

    model: ParameterName = Field(description="A str parameter: the model's name or folder")
    rows: ParameterName = Field(description="An int parameter: rows of a micro-batch of a rank")
    sequence: ParameterName = Field(description="An int parameter: tokens of a row")
    accumulation: ParameterName = Field(
        description="An int parameter: micro-batches of a step and rank"
    )
    global_rows: ParameterName = Field(
        description="An int parameter: rows of a step over all ranks; 0 = by accumulation"
    )
    adapter_rank: ParameterName = Field(description="An int parameter: rank of the adapters")
    steps: ParameterName = Field(description="An int parameter: steps of the whole training")
    only: Conditions = Field(
        default_factory=dict,
        description="Parameter name -> value; without these nothing is predicted",
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
