"""What runs of a workload are predicted from, in its workload.yaml: names of parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.parsing.inputs.validation import Strict
from orchestrator.parsing.inputs.workloads.condition_schema import Conditions
from orchestrator.parsing.inputs.workloads.schema_types import Label, Number, ParameterName

Count = Annotated[int, Field(gt=0, strict=True)]


class TextsEntry(Strict):
    """What is assumed of the texts in a row."""

    tokens: Count = Field(description="Tokens of one text, on average")
    targets: Number = Field(gt=0, le=1, description="Share of them that are predicted")
    only: Conditions = Field(
        default_factory=dict, description="Parameter name -> value; without these it is not known"
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
    texts: TextsEntry | None = Field(
        default=None, description="Several texts are packed into a row; null = a row is one text"
    )
    only: Conditions = Field(
        default_factory=dict,
        description="Parameter name -> value; without these nothing is predicted",
    )


class FiguresEntry(Strict):
    """Metrics that the workload reports, to be predicted; null = it reports no such thing."""

    throughput: Label = Field(description="Output tokens per second of all engines")
    first_token: Label | None = Field(default=None, description="Median time to the first token")
    token: Label | None = Field(default=None, description="Median time of each token after it")
    watts: Label = Field(default="watts", description="Mean power of a GPU")
    cache: Label | None = Field(
        default=None, description="Bytes that an engine keeps for keys and values"
    )
    prefill: Label | None = Field(
        default=None, description="Input tokens per second until the first token, of eager"
    )
    memory: Label | None = Field(default=None, description="Peak of a GPU in GiB, of eager")


class InferenceEntry(Strict):
    """What inference a workload does, for predictions: names of parameters."""

    program: Literal["engine", "eager"] = Field(
        default="engine",
        description="engine: the built-in one; eager: one forward pass after the other by "
        "transformers, in_flight sequences together",
    )
    tensor_parallel: ParameterName | None = Field(
        default=None, description="An int parameter, of eager: ranks that share a model, 0 = all"
    )
    model: ParameterName = Field(description="A str parameter: the model's name or folder")
    shape: ParameterName | None = Field(
        default=None, description="A choice parameter: sizes with random weights, without a model"
    )
    prompt_words: ParameterName | Count = Field(
        description="An int parameter: words of a prompt; or a number"
    )
    tokens_per_word: Number = Field(gt=0, le=16, description="What is assumed of them")
    answer: ParameterName | Count = Field(
        description="An int parameter: tokens of an answer; or a number"
    )
    in_flight: ParameterName | None = Field(
        default=None,
        description="An int parameter: requests that are answered at once; without it and batches "
        "an engine answers as many as its memory holds",
    )
    batches: ParameterName | None = Field(
        default=None,
        description="A str parameter: numbers of requests at once, with commas, one after the "
        "other on one engine; the figures of N are called NAME.batchN",
    )
    shared: bool = Field(
        default=False, description="in_flight is of all engines together, not of each"
    )
    rate: ParameterName | None = Field(
        default=None, description="A float parameter: requests per second of all engines"
    )
    duration: ParameterName | None = Field(
        default=None, description="A float parameter: seconds for which requests come at the rate"
    )
    closed: Conditions = Field(
        default_factory=dict,
        description="Parameter name -> value: where this holds, in_flight counts and not the rate",
    )
    engines: ParameterName | None = Field(
        default=None, description="An int parameter: engines of a node; 0 = one for each GPU"
    )
    context: ParameterName | None = Field(
        default=None,
        description="An int parameter: tokens for which each engine keeps memory, 0 = as the "
        "built-in engine chooses; without it an engine takes the memory that it finds",
    )
    served: bool = Field(
        default=False,
        description="Requests and answers are texts of other programs: by HTTP, or as samples",
    )
    figures: FiguresEntry = Field(description="The metrics that are predicted")
    only: Conditions = Field(
        default_factory=dict,
        description="Parameter name -> value; without these nothing is predicted",
    )
