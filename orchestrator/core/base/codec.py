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
        return _union_decoder(members)
    if origin is tuple:
        each = tuple(map(_decoder, (m for m in members if m is not Ellipsis)))
        return functools.partial(_decode_items if Ellipsis in members else _decode_tuple, each)
    if origin is not None and issubclass(origin, Mapping):
        return functools.partial(_decode_mapping, _decoder(members[1]))
    return _scalar_decoder(wanted)


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
def _field_decoders(cls: type) -> tuple[str | None, dict[str, tuple[str, Decoder]]]:
    """(wire name, (name, decoder) of each field by the key that it is written under). Asked at the
    first value: a type may hold itself.
    """
    hints = typing.get_type_hints(cls)
    fields = {key: (name, _decoder(hints[name])) for key, name in _keys(cls).items()}
    return wire_name(cls), fields


def _decode_record(cls: type, data: Any) -> Any:
    tag, fields = _field_decoders(cls)
    if not isinstance(data, dict) or data.get("type") != tag:
        raise CodecError(f"expected a {tag}")
    given: dict[str, Any] = {}
    for key, item in data.items():
        if key in fields:
            name, decode = fields[key]
            given[name] = decode(item)
        elif key != "type":
            raise CodecError(f"{cls.__name__} has no field {key!r}")
    try:
        return cls(**given)
    except TypeError as error:
        raise CodecError(f"{cls.__name__}: {error}") from error


def _union_decoder(members: Sequence[Any]) -> Decoder:
    others = [member for member in members if member is not NoneType]
    tags = {member: wire_name(member) for member in others if isinstance(member, type)}
    tagged = {tag: _decoder(member) for member, tag in tags.items() if tag is not None}
    plain = tuple(_decoder(member) for member in others if tags.get(member) is None)
    return functools.partial(_decode_union, NoneType in members, tagged, plain)


def _decode_union(
    with_none: bool, tagged: Mapping[str, Decoder], plain: Sequence[Decoder], data: Any
) -> Any:
    """``tagged``: members by their wire name; ``plain``: those that have none, of which the first
    one that fits counts.
    """
    if data is None and with_none:
        return None
    tag = data.get("type") if isinstance(data, dict) else None
    if isinstance(tag, str) and tag in tagged:
        return tagged[tag](data)
    for decode in plain:
        try:
            return decode(data)
        except CodecError:
            continue
    raise CodecError(f"no member of the union fits {tag or type(data).__name__!r}")


def _decode_items(each: Sequence[Decoder], data: Any) -> tuple[Any, ...]:
    """Any number of values of one type."""
    if not isinstance(data, list):
        raise CodecError("expected a list")
    return tuple(map(each[0], data))


def _decode_tuple(each: Sequence[Decoder], data: Any) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise CodecError("expected a list")
    if len(each) != len(data):
        raise CodecError(f"expected {len(each)} items")
    return tuple(decode(item) for decode, item in zip(each, data, strict=True))


def _decode_mapping(decode: Decoder, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CodecError("expected an object")
    return {key: decode(item) for key, item in data.items()}


def _scalar_decoder(wanted: Any) -> Decoder:
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return functools.partial(_decode_enum, wanted)
    if wanted is float:
        return _decode_float
    return functools.partial(_decode_scalar, wanted)


def _decode_enum(wanted: type[Enum], data: Any) -> Any:
    try:
        return wanted(data)
    except ValueError as error:
        raise CodecError(str(error)) from error


def _decode_float(data: Any) -> float:
    if isinstance(data, float):
        return data
    if type(data) is int:
        return float(data)
    raise CodecError(f"expected float, not {type(data).__name__}")


def _decode_scalar(wanted: Any, data: Any) -> Any:
    if type(data) is wanted:
        return data
    if wanted is Secret:
        raise CodecError("a secret is never written")
    raise CodecError(f"expected {getattr(wanted, '__name__', wanted)}, not {type(data).__name__}")
