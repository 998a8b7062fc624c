"""Sections of a workload.yaml that say what its runs are predicted from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.workload import (
    InferenceFigures,
    InferenceSource,
    Parameter,
    ParameterType,
    TextSource,
    TrainingSource,
)
from orchestrator.parsing.inputs.workloads.parameter_rules import (
    conditions_problems,
    make_conditions,
)
from orchestrator.parsing.inputs.workloads.prediction_schema import (
    InferenceEntry,
    TextsEntry,
    TrainingEntry,
)
from orchestrator.parsing.inputs.yaml_source import Document, InputProblem

_STRINGS = ("model", "batches")
_FLOATS = ("rate", "duration")
_INTS = ("prompt_words", "answer", "in_flight", "engines", "context", "tensor_parallel")


def make_training(
    entry: TrainingEntry | None,
    parameters: Mapping[str, Parameter],
    document: Document,
    problems: list[InputProblem],
) -> TrainingSource | None:
    """The section ``training``; what is wrong with it is added to ``problems``."""
    if entry is None:
        return None
    named = entry.model_dump(exclude={"only", "texts"})
    wanted = dict.fromkeys(named, ParameterType.INT) | {"model": ParameterType.STR}
    found = [*misnamed("training", named, wanted, parameters, document)]
    found += conditions_problems(entry.only, ("training", "only"), parameters, document)
    texts = entry.texts
    if texts is not None:
        place = ("training", "texts", "only")
        found += conditions_problems(texts.only, place, parameters, document)
    problems += found
    only = () if found else make_conditions(entry.only, parameters)
    packed = None if found or texts is None else _texts(texts, parameters)
    return TrainingSource(**named, texts=packed, only=only)


def _texts(entry: TextsEntry, parameters: Mapping[str, Parameter]) -> TextSource:
    only = make_conditions(entry.only, parameters)
    return TextSource(tokens=entry.tokens, targets=entry.targets, only=only)


def make_inference(
    entry: InferenceEntry | None,
    parameters: Mapping[str, Parameter],
    document: Document,
    problems: list[InputProblem],
) -> InferenceSource | None:
    """The section ``inference``, likewise."""
    if entry is None:
        return None
    wanted = dict.fromkeys(_INTS, ParameterType.INT) | dict.fromkeys(_FLOATS, ParameterType.FLOAT)
    wanted |= dict.fromkeys(_STRINGS, ParameterType.STR) | {"shape": ParameterType.CHOICE}
    given = {key: name for key in wanted if (name := getattr(entry, key)) is not None}
    named = {key: name for key, name in given.items() if isinstance(name, str)}
    kinds = {key: wanted[key] for key in named}
    found = [*misnamed("inference", named, kinds, parameters, document)]
    found += conditions_problems(entry.only, ("inference", "only"), parameters, document)
    found += conditions_problems(entry.closed, ("inference", "closed"), parameters, document)
    problems += found
    return InferenceSource(
        **given,
        program=entry.program,
        tokens_per_word=entry.tokens_per_word,
        shared=entry.shared,
        served=entry.served,
        closed=() if found else make_conditions(entry.closed, parameters),
        figures=InferenceFigures(**entry.figures.model_dump()),
        only=() if found else make_conditions(entry.only, parameters),
    )


def misnamed(
    section: str,
    named: Mapping[str, str],
    wanted: Mapping[str, ParameterType],
    parameters: Mapping[str, Parameter],
    document: Document,
) -> Iterator[InputProblem]:
    """Parameters that a section names and that are not there, or of another type."""
    for key, kind in wanted.items():
        name, place = named[key], document.place((section, key))
        if name not in parameters:
            what = f"{section}.{key}: unknown parameter {name!r}"
            yield InputProblem(place, what, did_you_mean(name, parameters))
        elif parameters[name].type is not kind:
            what = f"{section}.{key}: parameter {name} is of type {parameters[name].type.value}"
            yield InputProblem(place, f"{what}, not {kind.value}")
