"""YAML in: types, positions, limits, and what hostile files do not get."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.file_sizes import MAX_FILE_BYTES
from orchestrator.parsing.inputs.yaml_source import MAX_DEPTH, parse_yaml, resolve_scalar
from tests.time_limits import assert_within

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def refusal(data: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parse_yaml(data, "f.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "word,value",
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("22:22", "22:22"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 30, "9" * 30),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("1.5", 1.5),
        ("1e-4", 1e-4),
        ("1.", 1.0),
    ],
)
def test_plain_words_mean_little(word: str, value: Any) -> None:
    """Only true, false, null and decimal numbers are more than text."""
    found = resolve_scalar(word)

    assert found == value
    assert type(found) is type(value)


def test_quoted_words_are_text() -> None:
    """Quotes switch every meaning off."""
    assert parse_yaml("['1', \"true\", '']", "f").root.plain() == ["1", "true", ""]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_is_read_as_it_is_meant(value: Any) -> None:
    """JSON is YAML: whatever it holds comes back."""
    document = parse_yaml(json.dumps(value), "f")

    assert document.root.plain() == value
    assert document.problems == ()


def test_positions_follow_the_path() -> None:
    """A value, its key, an item, and something absent all have a place."""
    document = parse_yaml("a:\n  b: [x,\n      y]\nc: &n {d: 1}\ne: *n\n", "f.yaml")

    assert str(document.place(("a", "b", 1))) == "f.yaml:3:7"
    assert str(document.place(("a", "b"), key=True)) == "f.yaml:2:3"
    assert str(document.place(("e", "d"))) == "f.yaml:4:11"
    assert str(document.place(("a", "b", 9, "z"))) == "f.yaml:2:6"


@pytest.mark.processes
@pytest.mark.parametrize(
    "data,expected",
    [
        (b"ok: 1\nbad: \xff\n", "f.yaml:2:6: not UTF-8"),
        ("\ufeffok: 1\nbad: \0", "f.yaml:2:6: control character U+0000"),
        ("a: \x1b[31m", "f.yaml:1:4: control character U+001B"),
        ("a:\n\tb: 1", "f.yaml:2:1: a tab"),
        ("a: [1", "f.yaml:1:4: the bracket [ is not closed before line 1, column 6"),
        ("n: 1\na: [b, c\nd:\n  e: 1\n", "f.yaml:2:4: the bracket [ is not closed before line 3"),
        ("a: [{b: 1}, {c: 2]\nd: 3\n", "f.yaml:1:13: the bracket { is not closed before line 1"),
        ("a: {b: [1, 2}\n", "f.yaml:1:8: the bracket [ is not closed before line 1, column 13"),
        ("a: |\n  [\nb: [\n", "f.yaml:3:4: the bracket [ is not closed before line 4"),
        ("a: [1]]\n", "f.yaml:1:7: broken YAML"),
        ("a: [@]\n", "f.yaml:1:5: broken YAML: found character '@'"),
        ("b: 1\na: 'open\nc: 2\n", "f.yaml:2:4: the quote ' is not closed before line 4"),
        ('a: "open\n', 'f.yaml:1:4: the quote " is not closed'),
        ("a: 1\n---\nb: 1", "f.yaml:2:1: a second document"),
        ("a: &x [*x]", "f.yaml:1:8: this alias (*) names no earlier, finished value"),
        ("a: *nowhere", "f.yaml:1:4: this alias (*)"),
        ("? [1, 2]\n: 3", "f.yaml:1:3: a key must be plain text"),
        (BOMB, "values, aliases expanded"),
        ("a: " + "[" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH}"),
        ("[" * 100_000, f"deeper than {MAX_DEPTH}"),
        ("[" + "x," * 60_000 + "]", "values, aliases expanded"),
        ("x" * (MAX_FILE_BYTES + 1), "larger than 1024 KiB"),
    ],
)
def test_what_is_not_one_small_document_is_refused(data: str | bytes, expected: str) -> None:
    """Every refusal is a usage error with its place, and comes soon."""
    begin = time.monotonic()

    assert expected in refusal(data)
    assert_within("a refusal", time.monotonic() - begin, 20)


def test_an_alias_that_nests_too_deep_is_refused() -> None:
    """Depth counts what an alias stands for, not how it is written."""
    levels = "\n".join(f"a{n}: &a{n} [[*a{n - 1}]]" for n in range(1, 20))

    assert f"deeper than {MAX_DEPTH}" in refusal(f"a0: &a0 [x]\n{levels}")


@pytest.mark.parametrize(
    "text,expected",
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: key 'a' is given twice (first at line 1)"),
        ("x: {b: 1, 'b': 2}", "f.yaml:1:11: key 'b' is given twice"),
        ("a: !!python/object:os.system ls", "f.yaml:1:4: a tag"),
        ("a: !!python/object/apply:os.system [ls]", "f.yaml:1:4: a tag"),
        ("!secret x", "f.yaml:1:1: a tag"),
        ('a: "x\\0"', "f.yaml:1:4: a NUL character"),
        ('a: "\\ud800"', "f.yaml:1:4: an escape that is half a character"),
        ("a: &d {x: 1}\nb: {<<: *d}", "f.yaml:2:5: merge keys are not accepted"),
    ],
)
def test_duplicate_keys_tags_and_merge_keys_are_problems(text: str, expected: str) -> None:
    """They do not stop the reading, so that they are shown together with everything else."""
    problems = parse_yaml(text, "f.yaml").problems

    assert len(problems) == 1
    assert f"{problems[0].place}: {problems[0].what}".startswith(expected)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_and_any_bytes_are_read_or_refused(data: str | bytes) -> None:
    """No input makes the reader fail in another way than with a place in the file."""
    with contextlib.suppress(UsageError):
        assert parse_yaml(data, "f").source == "f"
