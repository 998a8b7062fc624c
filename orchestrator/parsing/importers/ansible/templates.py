"""Templates in values: the simplest are filled in, the others are never taken literally.

``{{ name }}`` is filled in where ``name`` is a variable of the host or one of Ansible's own that
the inventory alone decides. Filters, lookups and statements only Ansible can work out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.parsing.importers.ansible.literals import as_text, is_template
from orchestrator.parsing.importers.ansible.model import Encrypted, Value, Variables

_MAX_DEPTH = 16
_MAX_TEXT = 4096
_NAME = re.compile(r"\{\{-?\s*([A-Za-z_][A-Za-z0-9_]*)\s*-?\}\}")


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
        return _look_up(alone[1], variables, depth)
    filled = _NAME.sub(lambda match: _as_word(_look_up(match[1], variables, depth)), value)
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


def _look_up(name: str, variables: Variables, depth: int) -> Value:
    if name not in variables:
        raise NotLiteral("a template that only Ansible can work out")
    return fill_in(variables[name], variables, depth + 1)


def _as_word(value: Value) -> str:
    text = as_text(value)
    if text is None:
        raise NotLiteral("a template that only Ansible can work out")
    return text
