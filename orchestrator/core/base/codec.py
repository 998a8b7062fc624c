"""Frozen dataclasses to JSON-ready values and back, for the journal, plans and results.

Every dataclass, and every named tuple with a wire name, becomes an object whose ``type`` key is
its wire name (see ``core.base.wire_names``), so that unions decode without guessing. Secrets are
written as ``***`` and therefore do not come back: whoever reads a plan or journal must fetch them
again from where they came.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import NoneType
from typing import Any, Union, get_args, get_origin

from orchestrator.core.base.command import MASK, Secret
from orchestrator.core.base.wire_names import wire_key, wire_name

Decoder = Callable[[Any], Any]
Encoder = Callable[[Any], Any]
_ENCODERS: dict[type, Encoder] = {}


class CodecError(ValueError):
    """The value does not have the shape of the wanted type."""


def to_json(value: object) -> Any:
    """A JSON-ready copy of ``value``: dataclasses, enums, mappings, tuples and plain values.

    Raises ``CodecError`` for anything else.
    """
    encode = _ENCODERS.get(type(value)) or _encoder(type(value))
    return encode(value)


def _encoder(cls: type) -> Encoder:
    """How values of a type are written is asked once, not of every value."""
    found = _ENCODERS[cls] = _new_encoder(cls)
    return found


def _new_encoder(cls: Any) -> Encoder:
    if issubclass(cls, Secret):
        return _mask
    if is_record(cls):
        return functools.partial(_encode_record, _type_tag(cls), tuple(_keys(cls).items()))
    if issubclass(cls, Enum):
        return _enum_value
    if issubclass(cls, Mapping):
        return _encode_mapping
    if issubclass(cls, tuple | list):
        return _encode_sequence
    if issubclass(cls, NoneType | bool | int | float | str):
        return _as_it_is
    raise CodecError(f"cannot write a {cls.__name__}")


def _mask(_: Secret) -> str:
    return MASK


def is_record(cls: type) -> bool:
    """Whether values of a type are written as objects: dataclasses and named tuples with a name. A
    named tuple is made in a tenth of the time, where a command waits for its import.
    """
    named = hasattr(cls, "_fields") and issubclass(cls, tuple) and wire_name(cls) is not None
    return named or dataclasses.is_dataclass(cls)


def _encode_record(tag: str, names: Sequence[tuple[str, str]], value: object) -> Any:
    written: dict[str, Any] = {"type": tag}
    for key, name in names:
        written[key] = to_json(getattr(value, name))
    return written


def _enum_value(value: Enum) -> Any:
    return value.value


def _encode_mapping(value: Mapping[Any, Any]) -> Any:
    return {str(key): to_json(item) for key, item in value.items()}


def _encode_sequence(value: Sequence[Any]) -> Any:
    return [to_json(item) for item in value]


def _as_it_is(value: Any) -> Any:
    return value


def from_json(wanted: Any, data: Any) -> Any:
    """``data`` as an instance of ``wanted``, a type or a union of types. Raises ``CodecError``."""
    return _decoder(wanted)(data)


@functools.cache
def _decoder(wanted: Any) -> Decoder:
    """What a type is made of is asked once, not of every value: journals have many."""
    if isinstance(wanted, type) and is_record(wanted):
        return functools.partial(_decode_record, wanted)
    origin, members = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return functools.partial(_decode_union, tuple(map(_union_member, members)))
    if origin is tuple:
        return functools.partial(_decode_tuple, members)
    if origin is not None and issubclass(origin, Mapping):
        return functools.partial(_decode_mapping, members[1])
    return functools.partial(_decode_scalar, wanted)


def _type_tag(cls: type) -> str:
    name = wire_name(cls)
    if name is None:
        raise CodecError(f"{cls.__name__} has no wire name")
    return name


@functools.cache
def _keys(cls: type) -> dict[str, str]:
    """The names of its fields by the keys that they are written under."""
    if not dataclasses.is_dataclass(cls):
        names: tuple[str, ...] = getattr(cls, "_fields")  # noqa: B009 - of a named tuple
        return {name: name for name in names}
    return {wire_key(field): field.name for field in dataclasses.fields(cls)}


@functools.cache
def _field_decoders(cls: type) -> dict[str, Decoder]:
    return {name: _decoder(hint) for name, hint in typing.get_type_hints(cls).items()}


def _decode_record(cls: type, data: Any) -> Any:
    if not isinstance(data, dict) or data.get("type") != wire_name(cls):
        raise CodecError(f"expected a {wire_name(cls)}")
    keys, decoders = _keys(cls), _field_decoders(cls)
    unknown = data.keys() - keys.keys() - {"type"}
    if unknown:
        raise CodecError(f"{cls.__name__} has no field {min(unknown)!r}")
    given = {keys[key]: item for key, item in data.items() if key != "type"}
    try:
        return cls(**{name: decoders[name](item) for name, item in given.items()})
    except TypeError as error:
        raise CodecError(f"{cls.__name__}: {error}") from error


def _union_member(member: Any) -> tuple[str | None, Decoder | None]:
    """(wire name of a record, decoder); no decoder for None."""
    if member is type(None):
        return None, None
    known = isinstance(member, type) and is_record(member)
    return wire_name(member) if known else None, _decoder(member)


def _decode_union(members: Sequence[tuple[str | None, Decoder | None]], data: Any) -> Any:
    if data is None and any(decode is None for _, decode in members):
        return None
    tag = data.get("type") if isinstance(data, dict) else None
    for name, decode in members:
        if decode is None or name not in (None, tag):
            continue
        if name is not None:
            return decode(data)
        try:
            return decode(data)
        except CodecError:
            continue
    raise CodecError(f"no member of the union fits {tag or type(data).__name__!r}")


def _decode_tuple(members: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise CodecError("expected a list")
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(from_json(members[0], item) for item in data)
    if len(members) != len(data):
        raise CodecError(f"expected {len(members)} items")
    return tuple(from_json(member, item) for member, item in zip(members, data, strict=True))


def _decode_mapping(member: Any, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CodecError("expected an object")
    return {key: from_json(member, item) for key, item in data.items()}


def _decode_scalar(wanted: Any, data: Any) -> Any:
    if wanted is Secret:
        raise CodecError("a secret is never written")
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        try:
            return wanted(data)
        except ValueError as error:
            raise CodecError(str(error)) from error
    if wanted is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(wanted, type) and type(data) is wanted:
        return data
    raise CodecError(f"expected {getattr(wanted, '__name__', wanted)}, not {type(data).__name__}")
