"""Folded node names: reading, writing, set algebra, and errors that point at a column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.nodeset import (
    MAX_NAMES,
    NodeSet,
    NodeSetError,
    expand_nodeset,
    fold_nodeset,
    is_name,
    natural_key,
    split_terms,
)

NAMES = st.from_regex(r"[a-z]{1,2}[0-9]{0,3}(-[a-z]?[0-9]{1,2})?", fullmatch=True)
NAME_LISTS = st.lists(NAMES, max_size=40)


@pytest.mark.parametrize(
    "text,names",
    [
        ("gpu1", ["gpu1"]),
        ("gpu[01-03]", ["gpu01", "gpu02", "gpu03"]),
        ("a[1-2,7]b", ["a1b", "a2b", "a7b"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("[08-11]", ["08", "09", "10", "11"]),
        ("[98-101]", ["98", "99", "100", "101"]),
        ("b, a[2,1] ,b", ["b", "a2", "a1"]),
    ],
)
def test_names_unfold_in_the_order_of_writing(text: str, names: list[str]) -> None:
    """Ranges, lists, several brackets and padding mean what they say; each name comes once."""
    assert list(expand_nodeset(text)) == names


@pytest.mark.parametrize(
    "text,column",
    [
        ("", 1),
        ("a,,b", 3),
        ("a,", 3),
        ("a[", 2),
        ("a]", 2),
        ("ab[1[2]]", 5),
        ("a[]", 3),
        ("a[1-]", 3),
        ("a[1,x]", 5),
        ("a[3-1]", 3),
        ("a[1-010]", 3),
        ("a[001-10]", 3),
        ("ok,-x", 4),
        ("a b", 2),
        ("ok,a$(id)", 5),
        ("naïve", 3),
        ("n[-1-3]", 3),
        ("n[1,-3]", 5),
        ("n[1--3]", 3),
        (f"a[{'9' * 400}]", 3),
    ],
)
def test_what_is_no_node_set_is_refused_where_it_goes_wrong(text: str, column: int) -> None:
    """The error carries the column, from 1, of the offending part."""
    with pytest.raises(NodeSetError) as caught:
        expand_nodeset(text)

    assert caught.value.column == column


@pytest.mark.parametrize(
    "text", ["a[0-10000]", "a[0-9999]b[0-9]", "a[1-999999999999999]", "a[0-9999],b", "a" * 300]
)
def test_expansion_is_bounded(text: str) -> None:
    """Neither a range, a product nor a sum of terms makes more names than the limit."""
    with pytest.raises(NodeSetError):
        expand_nodeset(text)


@pytest.mark.parametrize("text", ["a[1-99]", "a[1-9]b[1-9]", "a[1-4],b[1-7]", "a[1-6,11-16]"])
def test_too_many_names_are_said_with_the_limit(text: str) -> None:
    with pytest.raises(NodeSetError, match="more than 10 names"):
        expand_nodeset(text, 10)


@pytest.mark.parametrize("text", ["n[-1]", "n[-1-3]", "n[1--3]", "n[1,-2-3]"])
def test_a_minus_sign_is_called_one(text: str) -> None:
    with pytest.raises(NodeSetError, match="has no minus sign"):
        expand_nodeset(text)


def test_the_bound_itself_is_allowed() -> None:
    """Exactly the limit fits."""
    assert len(expand_nodeset(f"a[1-{MAX_NAMES}]")) == MAX_NAMES


@given(NAME_LISTS)
def test_folding_and_unfolding_are_inverse(names: list[str]) -> None:
    """What is folded unfolds to the same names, and folding again changes nothing."""
    text = fold_nodeset(names)

    unfolded = expand_nodeset(text) if text else ()
    assert sorted(unfolded) == sorted(set(names))
    assert fold_nodeset(unfolded) == text


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 4))
def test_a_run_of_numbers_folds_into_one_range(first: int, count: int, width: int) -> None:
    """Consecutive names become one bracket, padded or not."""
    names = [f"n{number:0{width}d}" for number in range(first, first + count)]

    assert fold_nodeset(names).count("[") == (count > 1)
    assert list(expand_nodeset(fold_nodeset(names))) == names


def test_a_grid_folds_into_two_brackets() -> None:
    """Racks times nodes stay readable."""
    assert fold_nodeset(expand_nodeset("r[1-3]n[01-16]")) == "r[1-3]n[01-16]"


@given(NAME_LISTS, NAME_LISTS)
def test_set_algebra_is_that_of_sets(left: list[str], right: list[str]) -> None:
    """Union, intersection, difference and symmetric difference agree with Python's sets."""
    one, two = NodeSet.of(left), NodeSet.of(right)

    assert set(one | two) == set(left) | set(right)
    assert set(one & two) == set(left) & set(right)
    assert set(one - two) == set(left) - set(right)
    assert set(one ^ two) == set(left) ^ set(right)
    assert len(one) == len(set(left))
    assert all(name in one for name in left)


@given(NAME_LISTS)
def test_a_set_is_equal_to_what_its_text_says(names: list[str]) -> None:
    """Text and set carry the same information, the empty set included."""
    assert NodeSet.parse(str(NodeSet.of(names))) == NodeSet.of(names)


@given(st.text(max_size=60))
def test_any_text_gives_names_or_an_error_inside_the_text(text: str) -> None:
    """Arbitrary input never fails in another way, and yields nothing that is not a name."""
    column = 1
    names: tuple[str, ...] = ()
    try:
        names = expand_nodeset(text)
    except NodeSetError as error:
        column = error.column

    assert 1 <= column <= len(text) + 1
    assert all(is_name(name) for name in names)


def test_numbers_sort_by_value() -> None:
    """gpu2 comes before gpu10."""
    assert sorted(["gpu10", "gpu2", "b", "gpu02"], key=natural_key) == [
        "b",
        "gpu2",
        "gpu02",
        "gpu10",
    ]


def test_commas_in_brackets_do_not_split_terms() -> None:
    """Terms keep their brackets and know their columns."""
    assert split_terms("a[1,2], b:[0,3],c") == [(1, "a[1,2]"), (9, "b:[0,3]"), (17, "c")]
