"""A map that never changes behaves as a dictionary of which every copy is a new one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.persistent_map import SIZE, PersistentMap

keys = st.integers(0, 3 * SIZE)
# Which of the copies made so far is changed, and how.
changes = st.lists(st.tuples(st.integers(0, 200), keys, st.integers()), max_size=200)


@given(st.dictionaries(keys, st.integers()), changes)
def test_every_copy_is_what_a_dictionary_would_be(
    first: dict[int, int], made: list[tuple[int, int, int]]
) -> None:
    """Also of copies that grow from the same one in different ways, and of those left behind."""
    copies = [(PersistentMap(first), dict(first))]
    for number, key, value in made:
        own, known = copies[number % len(copies)]
        copies.append((own.with_item(key, value), {**known, key: value}))
    for own, known in copies:
        assert list(own.items()) == list(known.items())
        assert (list(own), list(own.values())) == (list(known), list(known.values()))
        assert own == known
        assert own == PersistentMap(known)
        assert len(own) == len(known)
        for key in range(3 * SIZE + 1):
            assert own.get(key) == known.get(key)
            assert (key in own) is (key in known)


@given(st.sets(keys, min_size=1), st.lists(keys))
def test_what_changed_is_found_in_order(known: set[int], changed: list[int]) -> None:
    before = PersistentMap({key: object() for key in sorted(known)})
    after = before.with_items({key: object() for key in changed if key in known})
    expected = {key: value for key, value in after.items() if value is not before[key]}
    assert list(after.changed_from(before).items()) == list(expected.items())
    assert set(expected) == known & set(changed)


def test_a_key_that_only_a_later_copy_has_is_no_key() -> None:
    before = PersistentMap({"a": 1})
    after = before.with_item("b", 2)
    assert "b" not in before
    with pytest.raises(KeyError):
        before["b"]
    assert after["b"] == 2
    assert before != after
