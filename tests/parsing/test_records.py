"""Answers of nodes are read by the fields that take them: strictly and within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.bounds import Address, Between, Chars, Items, Ours, Text
from orchestrator.parsing.replies.records import InvalidReply, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A part."""

    number: Annotated[int, Between(1, 8)]
    addresses: Annotated[tuple[Address, ...], Items(2)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A whole with every kind of field."""

    node: Annotated[str, Ours()]
    name: Text
    word: Annotated[str, Chars(4, "[a-z]*")] = ""
    rate: Annotated[float, Between(0, 10)] = 1.0
    good: bool | None = None
    ports: Annotated[tuple[Port, ...], Items(3)] = ()
    users: Annotated[tuple[int, ...] | None, Items(3, distinct=True)] = None
    errors: Annotated[Mapping[Text, int], Items(2)] = field(default_factory=dict)


def read(**data: Any) -> Card:
    return read_record(Card, {"name": "x", **data}, "card", node="n1")


def test_what_fits_is_read_as_it_is() -> None:
    found = read(
        word="ab",
        rate=2,
        good=True,
        ports=[{"number": 1, "addresses": ["::1%lo", "127.0.0.2"]}, {"number": 8}],
        users=[3, 1, 3],
        errors={"crc": 7},
        unknown_to_us=1,
    )

    first = Port(number=1, addresses=("::1", "127.0.0.2"))
    assert found == Card(
        node="n1",
        name="x",
        word="ab",
        rate=2.0,
        good=True,
        ports=(first, Port(number=8)),
        users=(1, 3),
        errors={"crc": 7},
    )


def test_null_is_the_default_where_a_field_has_one() -> None:
    assert read(word=None, ports=None, good=None, users=None) == Card(node="n1", name="x")


def test_nobody_sets_what_is_ours() -> None:
    assert read(node="another").node == "n1"


def test_text_is_made_printable() -> None:
    assert read(name="a\x1b[31m\nb").name == "a?[31m?b"


@pytest.mark.parametrize(
    "lie, where",
    [
        ({"name": None}, "card.name"),
        ({"name": 3}, "card.name"),
        ({"name": "x" * 257}, "card.name"),
        ({"word": "AB"}, "card.word"),
        ({"word": "ab\n"}, "card.word"),
        ({"rate": "2"}, "card.rate"),
        ({"rate": True}, "card.rate"),
        ({"rate": float("nan")}, "card.rate"),
        ({"rate": 11}, "card.rate"),
        ({"good": 1}, "card.good"),
        ({"ports": {}}, "card.ports"),
        ({"ports": [{"number": 1}] * 4}, "card.ports"),
        ({"ports": [{"number": 1}, {"number": 9}]}, "card.ports.1.number"),
        ({"ports": [{"number": True}]}, "card.ports.0.number"),
        ({"ports": [{}]}, "card.ports.0.number"),
        ({"ports": [{"number": 1, "addresses": ["nowhere"]}]}, "card.ports.0.addresses.0"),
        ({"errors": {"a": 1, "b": 2, "c": 3}}, "card.errors"),
        ({"errors": {"a": "1"}}, "card.errors"),
    ],
)
def test_what_does_not_fit_is_named(lie: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidReply) as refused:
        read(**lie)

    assert refused.value.where == where


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Card.__slots__, json_values)))
def test_any_json_is_a_record_or_a_refusal(data: dict[str, Any]) -> None:
    try:
        found = read_record(Card, data, "card", node="n1")
    except InvalidReply:
        return

    assert found.name.isprintable()
    assert 0 <= found.rate <= 10
    assert len(found.ports) <= 3
