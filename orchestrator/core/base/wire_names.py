"""The names under which data is written: in journals, in ``--json`` and in stored plans.

They are part of the format, class names are not: a class may be renamed, its wire name stays for
as long as somebody may hold a file with it. All of them: ``tests/golden/wire_names.txt``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

_ATTRIBUTE = "__wire_name__"
C = TypeVar("C", bound=type)


def wire(name: str) -> Callable[[C], C]:
    """Class decorator: instances are written as objects whose ``type`` is ``name``."""

    def mark(cls: C) -> C:
        setattr(cls, _ATTRIBUTE, name)
        return cls

    return mark


def wire_name(cls: type) -> str | None:
    """The name that ``cls`` is written under; None if it is never written. Not inherited."""
    name: str | None = vars(cls).get(_ATTRIBUTE)
    return name


def written_as(key: str) -> dict[str, str]:
    """Metadata of a dataclass field that is written under ``key``, whatever its name is here."""
    return {_ATTRIBUTE: key}


def wire_key(field: dataclasses.Field[Any]) -> str:
    """The key that ``field`` is written under. ``type`` is taken: it tells the class."""
    key: str = field.metadata.get(_ATTRIBUTE, field.name)
    return "type_" if key == "type" else key
