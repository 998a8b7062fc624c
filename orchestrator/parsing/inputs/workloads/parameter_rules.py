"""The ``rules`` of a workload.yaml -> :class:`ParameterRule`, checked against its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.parameter_conflicts import find_contradictions
from orchestrator.core.model.workload import (
    Condition,
    Parameter,
    ParameterRule,
    ParameterValue,
)
from orchestrator.parsing.inputs.validation import show_path
from orchestrator.parsing.inputs.workloads.condition_schema import ConditionEntry, RuleEntry
from orchestrator.parsing.inputs.workloads.parameters import always_number, check_value
from orchestrator.parsing.inputs.yaml_source import Document, InputProblem, Path

Parameters = Mapping[str, Parameter]


def read_rules(
    entries: Sequence[RuleEntry],
    parameters: Parameters,
    document: Document,
    problems: list[InputProblem],
) -> tuple[ParameterRule, ...]:
    """The rules that make sense; what is wrong with the others is added to ``problems``."""
    rules = []
    for index, entry in enumerate(entries):
        path = ("rules", index)
        found = list(_rule_problems(entry, path, parameters, document))
        problems += found
        if not found:
            rules.append(
                ParameterRule(
                    when=make_conditions(entry.when, parameters),
                    require=make_conditions(entry.require, parameters),
                    why=entry.why,
                    place=str(document.place(path)),
                )
            )
    return tuple(rules)


def contradicting_presets(
    rules: Sequence[ParameterRule],
    parameters: Parameters,
    presets: Mapping[str, Mapping[str, ParameterValue]],
    document: Document,
) -> Iterator[InputProblem]:
    """What the defaults, alone and with each preset, contradict themselves in."""
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    for preset, values in (("", {}), *presets.items()):
        origins = dict.fromkeys(defaults, "default") | dict.fromkeys(values, "preset")
        decided = {**defaults, **values}
        path = ("presets", preset) if preset else ("parameters",)
        place = document.place(path, key=True)
        for found in find_contradictions(rules, decided):
            who = f"preset {preset}" if preset else "the defaults"
            what = f"{who}: {found.told(decided, origins)}"
            yield InputProblem(
                place, f"{what}: {found.rule.why}", f"the rule is at {found.rule.place}"
            )


def make_conditions(
    entries: Mapping[str, ConditionEntry], parameters: Parameters
) -> tuple[Condition, ...]:
    """Conditions that have no problem."""
    return tuple(
        Condition(
            parameter=name,
            any_of=tuple(check_value(parameters[name], value) for value in entry.any_of or ()),
            none_of=tuple(check_value(parameters[name], value) for value in entry.none_of or ()),
            min=entry.min,
            max=entry.max,
        )
        for name, entry in entries.items()
    )


def _rule_problems(
    entry: RuleEntry, path: Path, parameters: Parameters, document: Document
) -> Iterator[InputProblem]:
    for side, conditions in (("when", entry.when), ("require", entry.require)):
        yield from conditions_problems(conditions, (*path, side), parameters, document)


def conditions_problems(
    conditions: Mapping[str, ConditionEntry], path: Path, parameters: Parameters, document: Document
) -> Iterator[InputProblem]:
    """What is wrong with the conditions at ``path``."""
    for name, condition in conditions.items():
        here = (*path, name)
        if name in parameters:
            yield from _condition_problems(condition, here, parameters, document)
        else:
            yield _unknown_parameter(name, here, parameters, document, key=True)


def _condition_problems(
    entry: ConditionEntry, path: Path, parameters: Parameters, document: Document
) -> Iterator[InputProblem]:
    parameter = parameters[str(path[-1])]
    for value in (*(entry.any_of or ()), *(entry.none_of or ())):
        try:
            check_value(parameter, value)
        except ValueError as error:
            yield InputProblem(document.place(path), f"{show_path(path)}: {error}")
    for key, bound in (("min", entry.min), ("max", entry.max)):
        if bound is not None:
            yield from _bound_problems(parameter, bound, (*path, key), parameters, document)


def _bound_problems(
    parameter: Parameter, bound: float | str, path: Path, parameters: Parameters, document: Document
) -> Iterator[InputProblem]:
    compared = [parameter]
    if isinstance(bound, str):
        if bound not in parameters:
            yield _unknown_parameter(bound, path, parameters, document)
            return
        compared.append(parameters[bound])
    for one in compared:
        if not always_number(one):
            what = f"{show_path(path)}: {one.name} is not always a number"
            yield InputProblem(document.place(path), what)


def _unknown_parameter(
    name: str, path: Path, parameters: Parameters, document: Document, *, key: bool = False
) -> InputProblem:
    what = f"{show_path(path)}: unknown parameter {name!r}"
    return InputProblem(document.place(path, key=key), what, did_you_mean(name, parameters))
