"""Templates in values: the simplest are filled in, the others are never taken literally.

``{{ name }}`` is filled in where ``name`` is a variable of the host or one of Ansible's own that
the inventory alone decides; so are ``{{ name.key }}``, ``{{ name['key'] }}``, ``{{ name[other] }}``
and ``{{ name | default('text') }}``. Other filters, lookups and statements only Ansible can work
out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from orchestrator.parsing.importers.ansible.literals import as_text, is_template
from orchestrator.parsing.importers.ansible.model import Encrypted, Value, Variables

_MAX_DEPTH = 16
_MAX_TEXT = 4096
_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
_TEXT = r"'[^'\\{}]*'|\"[^\"\\{}]*\""
_STEP = rf"\.{_WORD}|\[\s*(?:{_TEXT}|{_WORD}|[0-9]{{1,4}})\s*\]"
_VALUE = re.compile(rf"({_WORD})((?:{_STEP})*)")
_DEFAULT = rf"\s*\|\s*(?:default|d)\(\s*({_TEXT}|[0-9]{{1,9}}|{_WORD}(?:{_STEP})*)\s*\)"
_NAME = re.compile(rf"\{{\{{-?\s*({_WORD}(?:{_STEP})*)(?:{_DEFAULT})?\s*-?\}}\}}")
_STEPS = re.compile(_STEP)


class NotLiteral(ValueError):
    """A value that cannot be worked out here; the message says what it is."""


def fill_in(value: Value, variables: Variables, depth: int = 0) -> Value:
    """``value`` with its templates filled in. Raises :class:`NotLiteral`."""
    if isinstance(value, Encrypted):
        raise NotLiteral("encrypted by Ansible Vault")
    if not is_template(value):
        return value
    assert isinstance(value, str)
    if depth > _MAX_DEPTH:
        raise NotLiteral("a template that refers to itself")
    alone = _NAME.fullmatch(value)
    if alone is not None:
        return _worked_out(alone, variables, depth)
    filled = _NAME.sub(lambda match: _as_word(_worked_out(match, variables, depth)), value)
    if len(filled) > _MAX_TEXT or is_template(filled):
        raise NotLiteral("a template that only Ansible can work out")
    return filled


def magic_variables(host: str, folder: str | None, file: str | None) -> dict[str, Value]:
    """What Ansible itself says of a host: its name, and where the inventory lies."""
    is_address = ":" in host or re.fullmatch(r"[0-9]+(\.[0-9]+){3}", host) is not None
    places: Mapping[str, Value] = {"inventory_dir": folder, "inventory_file": file}
    return {
        "inventory_hostname": host,
        "inventory_hostname_short": host if is_address else host.partition(".")[0],
        **{name: place for name, place in places.items() if place is not None},
    }


class _Undefined(Exception):
    """A name, or a key of it, that the inventory does not define."""


def _worked_out(match: re.Match[str], variables: Variables, depth: int) -> Value:
    """The value of one ``{{ }}``, or its default where a name is not defined."""
    expression, default = match.groups()
    try:
        return _look_up(expression, variables, depth)
    except _Undefined:
        if default is None:
            raise NotLiteral("a template that only Ansible can work out") from None
    if default[0] in "'\"":
        return default[1:-1]
    if default.isdecimal():
        return int(default)
    try:
        return _look_up(default, variables, depth)
    except _Undefined:
        raise NotLiteral("a template that only Ansible can work out") from None


def _look_up(expression: str, variables: Variables, depth: int) -> Value:
    """Raises :class:`_Undefined`."""
    found = _VALUE.match(expression)
    assert found is not None
    name, steps = found.groups()
    if name not in variables:
        raise _Undefined
    value = fill_in(variables[name], variables, depth + 1)
    for step in _STEPS.findall(steps):
        key: Value = step[1:] if step[0] == "." else _key(step[1:-1].strip(), variables, depth)
        value = fill_in(_item(value, key), variables, depth + 1)
    return value


def _key(text: str, variables: Variables, depth: int) -> Value:
    if text[0] in "'\"":
        return text[1:-1]
    return int(text) if text.isdecimal() else _look_up(text, variables, depth)


def _item(value: Value, key: Value) -> Value:
    if isinstance(value, dict):
        if isinstance(key, str) and key in value and not hasattr({}, key):
            return cast("Value", value[key])
    elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return cast("Value", value[key])
    raise _Undefined


def _as_word(value: Value) -> str:
    text = as_text(value)
    if text is None:
        raise NotLiteral("a template that only Ansible can work out")
    return text
