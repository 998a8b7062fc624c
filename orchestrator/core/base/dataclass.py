"""``dataclass`` as in the standard library, at a tenth of the time that it takes to make a class.

The standard library writes and compiles six methods for each class: 0.5 ms, and a run imports 370
classes before anything is contacted. Here classes share all methods but their constructor, which is
compiled when it is called for the first time; many never are. Fields are the standard library's, so
``fields``, ``replace``, ``asdict`` and ``match`` work as ever. There is no ``InitVar``, no order,
and what is compared is what is hashed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, fields
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass  # what type checkers know all about
else:

    def dataclass(cls: type[Any] | None = None, /, **options: bool) -> Any:
        """As ``dataclasses.dataclass``; ``options``: eq, frozen, slots, kw_only."""
        return partial(_make_dataclass, **options) if cls is None else _make_dataclass(cls)


_FRESH = object()  # an argument that was not given: its field has a default_factory


def _make_dataclass(
    cls: type[Any],
    *,
    eq: bool = True,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
) -> type[Any]:
    """``cls`` as a data class; with ``slots``, a new class. What it defines itself is kept."""
    own = dict(vars(cls))
    if not cls.__doc__:
        cls.__doc__ = cls.__name__  # the standard library would evaluate a signature for it
    fields_only = dataclasses.dataclass(
        init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
    )
    made: type[Any] = fields_only(cls)
    methods: dict[str, Any] = {"__init__": _lazy_init(made, frozen), "__repr__": _repr}
    if eq:
        methods |= _comparison(made, hashable=frozen)
    if frozen:
        methods |= {"__setattr__": _refuse_assignment, "__delattr__": _refuse_deletion}
    if frozen and slots:
        methods |= {"__getstate__": _get_state, "__setstate__": _set_state}
    for name, method in methods.items():
        # Python sets the hash of a class that compares by itself to None.
        if name not in own or (name == "__hash__" and own[name] is None and "__eq__" in own):
            setattr(made, name, method)
    return made


def _lazy_init(cls: type[Any], frozen: bool) -> Callable[..., None]:
    def initialize(self: object, *args: object, **named: object) -> None:
        init = _compile_init(cls, frozen)
        cls.__init__ = init
        init(self, *args, **named)

    return initialize


def _compile_init(cls: type[Any], frozen: bool) -> Callable[..., None]:
    """The constructor of a data class, as the standard library would write it."""
    scope: dict[str, Any] = {"_set": object.__setattr__, "_fresh": _FRESH}
    ordered: list[str] = []
    named: list[str] = []
    body: list[str] = []
    for field in fields(cls):
        if field.init:
            (named if field.kw_only else ordered).append(_parameter(field, scope))
        if value := _value(field, scope, slots="__slots__" in vars(cls)):
            name = field.name
            body.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *ordered, *(["*", *named] if named else [])])
    lines = [f"def __init__({parameters}):", *(body or ["pass"])]
    exec("\n ".join(lines), scope)  # noqa: S102 - names of fields, which are identifiers
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _parameter(field: Field[Any], scope: dict[str, Any]) -> str:
    if field.default is not MISSING:
        scope[f"_default_{field.name}"] = field.default
        return f"{field.name}=_default_{field.name}"
    return field.name if field.default_factory is MISSING else f"{field.name}=_fresh"


def _value(field: Field[Any], scope: dict[str, Any], *, slots: bool) -> str:
    """The expression that the field begins with; empty: it has no value, or its class has it."""
    name = field.name
    if field.default_factory is not MISSING:
        scope[f"_make_{name}"] = field.default_factory
        made = f"_make_{name}()"
        return f"{made} if {name} is _fresh else {name}" if field.init else made
    if field.init:
        return name
    if field.default is MISSING or not slots:
        return ""
    scope[f"_default_{name}"] = field.default
    return f"_default_{name}"


def _comparison(cls: type[Any], *, hashable: bool) -> dict[str, Any]:
    values = _values_of([field.name for field in fields(cls) if field.compare])

    def equals(self: object, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    if not hashable:
        return {"__eq__": equals, "__hash__": None}

    def hashed(self: object) -> int:
        return hash(values(self))

    return {"__eq__": equals, "__hash__": hashed}


def _values_of(names: list[str]) -> Callable[[object], tuple[Any, ...]]:
    """The values of these fields, always as a tuple: its elements are equal if they are one."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _: ()
    one = attrgetter(names[0])
    return lambda self: (one(self),)


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_assignment(self: object, name: str, value: object) -> None:
    del self, value
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: object, name: str) -> None:
    del self
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
