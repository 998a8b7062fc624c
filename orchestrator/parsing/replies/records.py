"""Answers of nodes, read into dataclasses of the core by the types and bounds of their fields.

Strict: nothing is converted from one type to another. An agent of another version may say more;
what no field takes is ignored. A field that has a default may be absent or null.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from orchestrator.core.base.bounds import Between, Chars, IpAddress, Items, Ours

R = TypeVar("R")
Read = Callable[[Any, str], Any]  # (value, where it stands) -> the value as the field takes it
_KINDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}


class InvalidReply(ValueError):
    """An answer does not have the shape of its record. ``where``: ``facts.gpus.0.index``."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


def printable_text(text: str) -> str:
    """``text`` with ``?`` for every character that cannot be printed."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def read_record(wanted: type[R], data: object, where: str, **ours: Any) -> R:
    """``data`` as a ``wanted``; ``ours``: fields that the coordinator fills in itself.

    Raises :class:`InvalidReply` for the first field that does not fit.
    """
    if not isinstance(data, Mapping):
        raise InvalidReply(where, "expected an object")
    values, record = dict(ours), cast("Any", wanted)
    for field in _reader_fields(record):
        value = data.get(field.name)
        if field.name in ours or (value is None and field.has_default and not field.takes_null):
            continue
        if field.name in data:
            values[field.name] = field.read(value, f"{where}.{field.name}")
        elif not field.has_default:
            raise InvalidReply(f"{where}.{field.name}", "is missing")
    return wanted(**values)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    read: Read
    has_default: bool
    takes_null: bool


@functools.cache
def _reader_fields(wanted: type[Any]) -> tuple[_Field, ...]:
    """The fields that an answer may set."""
    hints = get_type_hints(wanted, include_extras=True)
    fields = ((field, hints[field.name]) for field in dataclasses.fields(wanted))
    return tuple(
        _Field(
            name=field.name,
            read=_reader_of(hint),
            has_default=(field.default, field.default_factory) != (dataclasses.MISSING,) * 2,
            takes_null=type(None) in get_args(hint),
        )
        for field, hint in fields
        if not any(isinstance(bound, Ours) for bound in getattr(hint, "__metadata__", ()))
    )


def _reader_of(hint: Any) -> Read:
    """How a value of that type is read."""
    if get_origin(hint) is Annotated:
        inner, *bounds = get_args(hint)
        return _bounded_reader(_reader_of(inner), bounds)
    if get_origin(hint) in (Union, types.UnionType):
        return _optional_reader(
            next(member for member in get_args(hint) if member is not type(None))
        )
    if get_origin(hint) is tuple:
        return _list_reader(_reader_of(get_args(hint)[0]))
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
        return _object_reader(*map(_reader_of, get_args(hint)))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(read_record, hint)
    return _plain_reader(hint)


def _plain_reader(kind: type[Any]) -> Read:
    def read(value: Any, where: str) -> Any:
        if kind is float and type(value) is int and abs(value) < 1 << 53:
            return float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise InvalidReply(where, f"expected {_KINDS[kind]}")
        return value

    return read


def _optional_reader(inner: Any) -> Read:
    read = _reader_of(inner)
    return lambda value, where: None if value is None else read(value, where)


def _list_reader(item: Read) -> Read:
    def read(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise InvalidReply(where, "expected a list")
        return tuple(item(one, f"{where}.{index}") for index, one in enumerate(value))

    return read


def _object_reader(key: Read, item: Read) -> Read:
    def read(value: Any, where: str) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise InvalidReply(where, "expected an object")
        return {key(name, where): item(one, where) for name, one in value.items()}

    return read


def _bounded_reader(read: Read, bounds: list[Any]) -> Read:
    """``read`` with the bounds checked: sizes first, so that no long answer is looked through."""
    for bound in bounds:
        read = _add_bound(bound, read)
    return read


def _add_bound(bound: object, read: Read) -> Read:
    match bound:
        case Between():
            return lambda value, where: _in_range(read(value, where), bound, where)
        case Chars():
            return lambda value, where: _check_text(read(value, where), bound, where)
        case IpAddress():
            return lambda value, where: _check_address(read(value, where), where)
        case Items():
            return lambda value, where: _read_items(value, bound, read, where)
        case _:
            return read


def _in_range(value: float, bound: Between, where: str) -> float:
    if not bound.low <= value <= bound.high:
        raise InvalidReply(where, f"expected a number from {bound.low:g} to {bound.high:g}")
    return value


def _check_text(value: str, bound: Chars, where: str) -> str:
    if len(value) > bound.most:
        raise InvalidReply(where, f"longer than {bound.most} characters")
    if bound.pattern and not re.fullmatch(bound.pattern, value):
        raise InvalidReply(where, f"does not match {bound.pattern}")
    return printable_text(value)


def _check_address(value: str, where: str) -> str:
    try:
        return str(ipaddress.ip_address(value[:64].partition("%")[0]))
    except ValueError:
        raise InvalidReply(where, "not an IP address") from None


def _read_items(value: Any, bound: Items, read: Read, where: str) -> Any:
    if isinstance(value, list | Mapping) and len(value) > bound.most:
        raise InvalidReply(where, f"more than {bound.most} items")
    items = read(value, where)
    return tuple(sorted(set(items))) if bound.distinct and items is not None else items
