"""A parameter as workload.yaml declares it, and which values it may have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Union

from ._declaration import DeclarationError

Value = Union[bool, int, float, str]

TYPES: Dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "choice": str}
_NUMBER = (int, float)
_KEYS: Dict[str, Any] = {
    **dict.fromkeys(("type", "help", "unit"), str),
    **dict.fromkeys(("min", "max", "above", "below"), _NUMBER),
    "default": (bool, int, float, str),
    "choices": list,
    "multiple_of": int,
    **dict.fromkeys(("pattern", "form"), str),
}
# Longer values are no words that a pattern describes, and would be slow to match.
MAX_MATCHED = 4096
_INT = re.compile(r"[-+]?[0-9](_?[0-9]){0,17}")


@dataclass(frozen=True)
class Parameter:
    """``min`` and ``max`` are inclusive, ``above`` and ``below`` are not. The ``choices`` of an int
    or a float are words in place of a number. A str matches all of ``pattern``; ``form`` says it in
    words.
    """

    name: str
    type: str
    default: Any
    help: str = ""
    unit: str = ""
    choices: Sequence[str] = ()
    min: Optional[float] = None
    max: Optional[float] = None
    above: Optional[float] = None
    below: Optional[float] = None
    multiple_of: Optional[int] = None
    pattern: Optional[str] = None
    form: str = ""

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_number(self) -> bool:
        return self.type in ("int", "float")

    @property
    def annotation(self) -> Any:
        """The type that its field in the script has."""
        plain = TYPES[self.type]
        return Union[plain, str] if self.is_number and self.choices else plain

    @property
    def expected(self) -> str:
        """In words: ``int >= 1 (steps) or auto``."""
        if self.type == "choice":
            return "one of " + ", ".join(self.choices)
        words = [self.form or self.type]
        if self._bounds:
            words.append(" and ".join(self._bounds))
        if self.unit:
            words.append("(%s)" % self.unit)
        return " or ".join([" ".join(words), *self.choices])

    def parse(self, text: str) -> Value:
        """A value from the command line. Raises ``ValueError``."""
        word = text.strip()
        if self.type == "int" and _INT.fullmatch(word):
            return self.checked(int(word))
        if self.type == "float" and word not in self.choices:
            try:
                return self.checked(float(word))
            except ValueError:
                raise ValueError("expected %s, found %r" % (self.expected, text)) from None
        return self.checked(text)

    def checked(self, value: Any) -> Value:
        """The value, if it is of the type and within the bounds. Raises ``ValueError``."""
        if self.is_number and isinstance(value, str) and value in self.choices:
            return value
        if self.type == "float" and type(value) is int:
            value = float(value)
        if not isinstance(value, (bool, int, float, str)) or not self._allows(value):
            raise ValueError("expected %s, found %r" % (self.expected, value))
        return value

    def _allows(self, value: Value) -> bool:
        if type(value) is not TYPES[self.type]:
            return False
        if isinstance(value, bool):
            return True
        if isinstance(value, str):
            return value in self.choices if self.type == "choice" else self._matches(value)
        low = -math.inf if self.min is None else self.min
        high = math.inf if self.max is None else self.max
        above = -math.inf if self.above is None else self.above
        below = math.inf if self.below is None else self.below
        even = self.multiple_of is None or value % self.multiple_of == 0
        return low <= value <= high and above < value < below and even

    def _matches(self, text: str) -> bool:
        if self.pattern is None:
            return True
        return len(text) <= MAX_MATCHED and re.fullmatch(self.pattern, text) is not None

    @property
    def _bounds(self) -> List[str]:
        signs = {
            ">=": self.min,
            ">": self.above,
            "<=": self.max,
            "<": self.below,
            "a multiple of": self.multiple_of,
        }
        return ["%s %g" % (sign, bound) for sign, bound in signs.items() if bound is not None]


def declared_parameter(name: str, entry: Any, source: str) -> Parameter:
    """Raises :class:`DeclarationError` for an entry that the coordinator would refuse, too."""
    try:
        parameter = Parameter(name=name, **_checked_keys(entry))
        parameter.checked(parameter.default)
    except ValueError as error:
        raise DeclarationError("%s: parameter %s: %s" % (source, name, error)) from None
    return parameter


def _checked_keys(entry: Any) -> Dict[str, Any]:
    """Raises ``ValueError``."""
    if not isinstance(entry, dict) or entry.get("type") not in TYPES or "default" not in entry:
        raise ValueError("it needs a default, and a type: %s" % ", ".join(TYPES))
    wrong = [key for key, value in entry.items() if not isinstance(value, _KEYS.get(key, ()))]
    if wrong:
        raise ValueError("%s: %r makes no sense here" % (wrong[0], entry[wrong[0]]))
    _check_pattern(entry)
    return entry


def _check_pattern(entry: Dict[str, Any]) -> None:
    """Raises ``ValueError``."""
    if bool(entry.get("pattern")) != bool(entry.get("form")):
        raise ValueError("pattern and form, which says it in words, go together")
    if entry.get("pattern") and entry["type"] != "str":
        raise ValueError("pattern does not apply to type %s" % entry["type"])
    try:
        re.compile(entry.get("pattern", ""))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError("pattern is no regular expression: %s" % error) from None
