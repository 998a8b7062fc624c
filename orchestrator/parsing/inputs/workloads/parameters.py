"""Values of workload parameters: from YAML (typed already) and from ``--set`` (text)."""

from __future__ import annotations

import math
import re

from orchestrator.core.base.suggest import describe_value, did_you_mean
from orchestrator.core.model.workload import Parameter, ParameterType, ParameterValue

_INT = re.compile(r"[-+]?[0-9](_?[0-9]){0,17}")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def parse_value(parameter: Parameter, text: str) -> ParameterValue:
    """``text`` as the parameter's type. Raises ``ValueError`` that says what was expected."""
    return check_value(parameter, _convert_text(parameter.type, text))


def check_value(parameter: Parameter, value: ParameterValue) -> ParameterValue:
    """``value`` if it has the parameter's type and meets its bounds, or is a word that is valid in
    place of a number; a whole number becomes a float where one is wanted. Raises ``ValueError``
    that says what was expected.
    """
    if parameter.type in _NUMBERS and value in parameter.choices:
        return value
    if parameter.type is ParameterType.FLOAT and type(value) is int:
        value = float(value)
    wanted = _PYTHON_TYPES[parameter.type]
    if type(value) is not wanted:
        raise ValueError(f"expected {expected_text(parameter)}, found {describe_value(value)}")
    if isinstance(value, str):
        _check_text(parameter, value)
    elif not isinstance(value, bool):
        _check_bounds(parameter, value)
    return value


def always_number(parameter: Parameter) -> bool:
    """Whether no value of it is a word."""
    return parameter.type in _NUMBERS and not parameter.choices


def expected_text(parameter: Parameter) -> str:
    """The parameter's type, bounds and unit in words: ``int >= 1 (steps) or auto``."""
    words = [parameter.form or parameter.type.value]
    if parameter.type is ParameterType.CHOICE:
        words = [f"one of {', '.join(parameter.choices)}"]
    bounds = _bound_texts(parameter)
    words += [" and ".join(bounds)] if bounds else []
    instead = parameter.choices if parameter.type in _NUMBERS else ()
    unit = f" ({parameter.unit})" if parameter.unit else ""
    return " ".join(words) + unit + "".join(f" or {word}" for word in instead)


def _bound_texts(parameter: Parameter) -> list[str]:
    signs = {
        ">=": parameter.min,
        ">": parameter.above,
        "<=": parameter.max,
        "<": parameter.below,
        "a multiple of": parameter.multiple_of,
    }
    return [f"{sign} {bound:g}" for sign, bound in signs.items() if bound is not None]


# Longer values are no words that a pattern describes, and would be slow to match.
MAX_MATCHED = 4096
_NUMBERS = (ParameterType.INT, ParameterType.FLOAT)
_PYTHON_TYPES: dict[ParameterType, type] = {
    ParameterType.BOOL: bool,
    ParameterType.INT: int,
    ParameterType.FLOAT: float,
    ParameterType.STR: str,
    ParameterType.CHOICE: str,
}


def _convert_text(type_: ParameterType, text: str) -> ParameterValue:
    """``text`` converted where it can be; else the text itself, which then fails the check."""
    word = text.strip().lower()
    if type_ is ParameterType.BOOL and word in _TRUE | _FALSE:
        return word in _TRUE
    if type_ is ParameterType.INT and _INT.fullmatch(word):
        return int(word)
    if type_ is ParameterType.FLOAT:
        try:
            return float(word)
        except ValueError:
            return text
    return text


def _check_bounds(parameter: Parameter, value: float) -> None:
    low = -math.inf if parameter.min is None else parameter.min
    high = math.inf if parameter.max is None else parameter.max
    above = -math.inf if parameter.above is None else parameter.above
    below = math.inf if parameter.below is None else parameter.below
    uneven = parameter.multiple_of is not None and value % parameter.multiple_of != 0
    if not (low <= value <= high and above < value < below) or uneven:
        raise ValueError(f"expected {expected_text(parameter)}, found {describe_value(value)}")


def _check_text(parameter: Parameter, value: str) -> None:
    if "\0" in value:
        raise ValueError("a NUL byte cannot be passed to a program")
    if parameter.pattern is not None and not (
        len(value) <= MAX_MATCHED and re.fullmatch(parameter.pattern, value)
    ):
        raise ValueError(f"expected {expected_text(parameter)}, found {describe_value(value)}")
    if parameter.type is ParameterType.CHOICE and value not in parameter.choices:
        hint = did_you_mean(value, parameter.choices)
        raise ValueError(
            f"expected {expected_text(parameter)}, found {describe_value(value)}; {hint}"
        )
