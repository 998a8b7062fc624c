"""Data classes of the package against those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable
from functools import partial
from operator import eq
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base import dataclass as ours

DEFAULT, FACTORY, REQUIRED = "default", "factory", "required"
Spec = dict[str, Any]


def specs() -> st.SearchStrategy[list[Spec]]:
    """Fields in an order that Python allows: what has a default last."""
    field = st.fixed_dictionaries(
        {
            "kind": st.sampled_from([REQUIRED, DEFAULT, FACTORY]),
            "init": st.booleans(),
            "repr": st.booleans(),
            "compare": st.booleans(),
            "kw_only": st.booleans(),
        }
    )
    return st.lists(field, max_size=5).map(
        lambda found: sorted(found, key=lambda f: f["kind"] != REQUIRED)
    )


def build(make: Callable[..., Any], fields: list[Spec], options: dict[str, bool]) -> type[Any]:
    """A class called ``Made`` with these fields."""
    body: dict[str, Any] = {"__annotations__": {}, "__module__": __name__, "__qualname__": "Made"}
    for number, wanted in enumerate(fields):
        rest = {key: value for key, value in wanted.items() if key != "kind"}
        if wanted["kind"] == DEFAULT:
            rest["default"] = number
        elif wanted["kind"] == FACTORY:
            rest["default_factory"] = list
        else:
            rest["init"] = True
        body["__annotations__"][f"f{number}"] = int
        body[f"f{number}"] = dataclasses.field(**rest)
    made: type[Any] = make(**options)(type("Made", (), body))
    return made


def outcome(act: Callable[[], Any]) -> Any:
    """What comes of it, an exception by its type and words."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error)


OPTIONS = st.fixed_dictionaries({n: st.booleans() for n in ("frozen", "slots", "kw_only", "eq")})
VALUES = st.integers(0, 2)
NAMES = st.sampled_from([f"f{number}" for number in range(6)])


@given(specs(), OPTIONS, st.lists(VALUES, max_size=6), st.dictionaries(NAMES, VALUES, max_size=6))
def test_it_behaves_as_the_standard_one(
    fields: list[Spec], options: dict[str, bool], given: list[int], named: dict[str, int]
) -> None:
    """Construction, comparison, text, hash, assignment, replacement, copies: the same, or the same
    error.
    """

    def seen(make: Callable[..., Any]) -> list[Any]:
        cls = build(make, fields, options)
        made = [outcome(lambda: cls(*given, **named)), outcome(lambda: cls(*given)), outcome(cls)]
        return [what for one in made for what in described(one, made, named, options)]

    assert seen(ours.dataclass) == seen(dataclasses.dataclass)


def described(
    one: Any, made: list[Any], named: dict[str, int], options: dict[str, bool]
) -> list[Any]:
    """What may be done with an instance, and what comes of it."""
    if isinstance(one, tuple):
        return [one]  # it could not be made
    known = [field.name for field in dataclasses.fields(one)]
    found = [
        outcome(lambda: repr(one)),
        outcome(lambda: dataclasses.astuple(one)),
        outcome(lambda: repr(dataclasses.replace(one, **named))),
        outcome(lambda: repr(copy.copy(one))),
        *([outcome(lambda: setattr(one, known[0], 9))] if known else []),
        *([outcome(lambda: delattr(one, known[-1]))] if known else []),
        outcome(lambda: repr(one)),
    ]
    if options["eq"]:  # else both are those of the object's address
        found += [outcome(lambda: hash(one)), *(outcome(partial(eq, one, it)) for it in made)]
    return found


@ours.dataclass(frozen=True, slots=True)
class Point:
    """For pickles, which need a name to be found under."""

    x: float
    tags: list[str] = dataclasses.field(default_factory=list, compare=False)
    known: ClassVar[int] = 3

    def __repr__(self) -> str:
        return "a point"


@ours.dataclass(frozen=True, slots=True, kw_only=True)
class Named(Point):
    """Inherits fields."""

    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.upper())


def test_what_a_class_defines_itself_is_kept() -> None:
    """Also in a class that inherits, which has its own again."""
    assert repr(Point(1.0)) == "a point"
    assert "name='N'" in repr(Named(1.0, name="n"))
    assert Named(2.0, ["t"], name="a").x == 2.0


def test_it_survives_pickling_and_matching() -> None:
    """Frozen, with slots: neither has a dictionary to restore."""
    point = pickle.loads(pickle.dumps(Named(1.5, ["a"], name="b")))
    assert point == Named(1.5, name="b")
    match point:
        case Point(x, tags):
            assert (x, tags) == (1.5, ["a"])
        case _:
            pytest.fail("it does not match")


def test_equality_is_that_of_tuples() -> None:
    """What is the same object is equal, even where it is not equal to itself."""
    assert Point(math.nan) == Point(math.nan)
    assert Point(1.0) != Named(1.0)
    assert hash(Point(1.0)) == hash(Point(1.0, ["other"]))


def test_fields_and_words_of_errors() -> None:
    """A missing argument is named with the class, as ever."""
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "tags", "name"]
    with pytest.raises(TypeError, match=r"Point\.__init__\(\) missing 1 required .*'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        Point(1.0).x = 2.0  # type: ignore[misc]
