"""What a word means: Python's literals in INI files, YAML 1.1 in YAML files."""

from __future__ import annotations

import ast
import re

from orchestrator.parsing.importers.ansible.model import Plain, Value

MAX_LITERAL = 4096

_BOOLEANS = {
    **dict.fromkeys(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BINARY = re.compile(r"[-+]?0b[0-1_]+")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F_]+")
_SEXAGESIMAL = re.compile(r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
)
_MAX_NUMBER = 64


def ini_value(text: str) -> Value:
    """A literal of Python where ``text`` is one (a number, True, None, a list, ...), else text."""
    if len(text) > MAX_LITERAL:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text
    return _plain_value(value)


def _plain_value(value: object) -> Value:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.decode("utf-8", "replace")
        case list() | tuple() | set():
            return [_plain_value(item) for item in value]
        case dict():
            return {str(key): _plain_value(item) for key, item in value.items()}
        case _:
            return str(value)


def yaml_value(text: str) -> str | int | float | bool | None:
    """What an unquoted word means in YAML 1.1: ``yes`` is true, ``010`` is 8, ``1:30`` is 90."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) > _MAX_NUMBER:
        return text
    digits = text.replace("_", "").removeprefix("+")
    try:
        if _SEXAGESIMAL.fullmatch(text):
            return _parse_sexagesimal(digits)
        if _DECIMAL.fullmatch(text):
            return int(digits)
        for pattern, base in ((_BINARY, 2), (_OCTAL, 8), (_HEXADECIMAL, 16)):
            if pattern.fullmatch(text):
                return int(digits.replace("0b", "").replace("0x", ""), base)
        return float(digits) if _FLOAT.fullmatch(text) else text
    except ValueError:
        return text  # only underscores where digits are expected


def _parse_sexagesimal(digits: str) -> int:
    total = 0
    for part in digits.lstrip("-").split(":"):
        total = total * 60 + int(part)
    return -total if digits.startswith("-") else total


def as_text(value: Value) -> str | None:
    """A value as a setting that is text takes it; None where it is no single word."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, bool | int | float) else None


def is_template(value: Value) -> bool:
    """Whether Ansible would evaluate ``value`` before it uses it."""
    if not isinstance(value, str) or isinstance(value, Plain):
        return False
    return any(mark in value for mark in ("{{", "{%", "{#"))
