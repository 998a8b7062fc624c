"""Which values of a workload's parameters do not go together, by the rules that it declares. Pure.

Values are of their parameters' types, also those in rules; a bound is a number, or names a
parameter that is always one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.model.workload import (
    Condition,
    Parameter,
    ParameterRule,
    ParameterType,
    ParameterValue,
)

SHOWN_CHARACTERS = 60

Values = Mapping[str, ParameterValue]
Parameters = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A rule that does not hold, and which of its requirements are not met."""

    rule: ParameterRule
    unmet: tuple[Condition, ...]

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters whose values the rule is for."""
        return tuple(condition.parameter for condition in self.rule.when)

    @property
    def against(self) -> tuple[str, ...]:
        """The parameters whose values do not go with those, and what bounds them."""
        names = [name for item in self.unmet for name in (item.parameter, *item.bounding)]
        return tuple(dict.fromkeys(names))

    def told(self, values: Values, origins: Mapping[str, str]) -> str:
        """What contradicts what, each with its value and where that came from."""
        shown = {
            name: f"{name}={_shown_value(values[name])} ({origins[name]})"
            for name in (*self.given, *self.against)
        }
        given, against = self.given, self.against
        if not given:
            given, against = against[:1], against[1:]
        left, right = (" and ".join(shown[name] for name in names) for names in (given, against))
        return f"{left} {'does' if len(given) == 1 else 'do'} not go with {right}"

    def remedy(self, parameters: Parameters) -> str:
        """What to set instead: all that is required, or something for which the rule is not."""
        wanted = condition_words(self.unmet, parameters)
        avoided = [way for item in self.rule.when for way in _values_avoiding(item, parameters)]
        return f"set {', or '.join([wanted, *avoided])}"


def find_contradictions(rules: Iterable[ParameterRule], values: Values) -> list[Contradiction]:
    """The rules that do not hold for ``values``, in their order."""
    found = []
    for rule in rules:
        unmet = tuple(item for item in rule.require if not condition_holds(item, values))
        if unmet and all(condition_holds(item, values) for item in rule.when):
            found.append(Contradiction(rule, unmet))
    return found


def condition_holds(condition: Condition, values: Values) -> bool:
    """Whether the parameter's value is as the condition says."""
    value = values[condition.parameter]
    if condition.any_of and value not in condition.any_of:
        return False
    low, high = (
        values[bound] if isinstance(bound, str) else bound
        for bound in (condition.min, condition.max)
    )
    large = low is None or float(low) <= float(value)
    small = high is None or float(value) <= float(high)
    return large and small and value not in condition.none_of


def condition_words(conditions: Iterable[Condition], parameters: Parameters) -> str:
    """``engine=auto|fused and global_batch >= 1``."""
    return " and ".join(word for item in conditions for word in _values_wanted(item, parameters))


def show_value(value: ParameterValue) -> str:
    """As ``--set`` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values_wanted(condition: Condition, parameters: Parameters) -> Iterator[str]:
    """What holds, one after the other, if the condition does."""
    name = condition.parameter
    if condition.any_of:
        yield f"{name}={_either_value(condition.any_of)}"
    if condition.none_of:
        yield _other_value(parameters[name], condition.none_of)
    if condition.min is not None:
        yield f"{name} >= {_bound_text(condition.min)}"
    if condition.max is not None:
        yield f"{name} <= {_bound_text(condition.max)}"


def _values_avoiding(condition: Condition, parameters: Parameters) -> Iterator[str]:
    """What is enough, each by itself, for the condition not to hold."""
    name = condition.parameter
    if condition.any_of:
        yield _other_value(parameters[name], condition.any_of)
    if condition.none_of:
        yield f"{name}={_either_value(condition.none_of)}"
    if condition.min is not None:
        yield f"{name} < {_bound_text(condition.min)}"
    if condition.max is not None:
        yield f"{name} > {_bound_text(condition.max)}"


def _other_value(parameter: Parameter, values: tuple[ParameterValue, ...]) -> str:
    """Another value than these: by name where there are but a few."""
    every: tuple[ParameterValue, ...] = ()
    if parameter.type is ParameterType.BOOL:
        every = (True, False)
    elif parameter.type is ParameterType.CHOICE:
        every = parameter.choices
    rest = tuple(value for value in every if value not in values)
    return (
        f"{parameter.name}={_either_value(rest)}"
        if rest
        else (f"{parameter.name} other than {_either_value(values)}")
    )


def _either_value(values: tuple[ParameterValue, ...]) -> str:
    return "|".join(map(_shown_value, values))


def _shown_value(value: ParameterValue) -> str:
    """In the middle of a sentence: short, and not nothing."""
    text = show_value(value) or "''"
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _bound_text(bound: float | str) -> str:
    return bound if isinstance(bound, str) else f"{bound:.15g}"
