"""The kit reads workload.yaml without a library: what the coordinator reads, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrate_kit import DeclarationError
from orchestrate_kit._declaration import SECTIONS, read_declaration
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.inputs.yaml_source import parse_yaml
from tests.workloads.conftest import WORKLOADS

BUNDLED = {
    path.parent.name: path.read_text(encoding="utf-8") for path in WORKLOADS.glob("*/workload.yaml")
}
# What YAML gives a meaning to, and what stands between.
PIECES = (
    *"\n:-#,[]{}'\"&*!|>%@`?~.=\\\t\r 07aé",
    "\n  ",
    "\n    ",
    "- ",
    ": ",
    " #",
    "a: ",
    "b:",
    "true",
    "null",
    "0.5",
    "1e3",
    "012",
    "'it''s'",
    '"x: y"',
    "[a, 1]",
    "{min: 1}",
    "\u2028",
    "\x85",
    "\xa0",
    "...",
    "---",
    "<<: ",
)

# What authors write: comments, both quotes, brackets, lists with and without indentation.
WRITTEN = """---
# a comment
summary: 'it''s # not a comment'  # but this is
metrics:
  m:
    help: >-
      several
      lines: here
    gate: {min: 1,
      max: 2}
parameters:

  first:  # below
    type: choice
    choices: [auto, "off", -1, 0.5, true, 'a: b']
    default: "x: y"
    help: text, with commas and a # sign
  second:
    type: int
    min: 0
rules:
- when: {first: auto, second: {not: [1, 2]}}
  require:
    second: {min: 1}
    first:
    - x
  why: as said
-   require: {second: 1}
"""


def coordinators(text: str) -> dict[str, Any] | None:
    """What the coordinator reads; None if it refuses."""
    try:
        document = parse_yaml(text, "workload.yaml")
    except UsageError:
        return None
    found = document.root.plain()
    if document.problems or not isinstance(found, dict):
        return None
    return {name: found[name] for name in SECTIONS if name in found}


def kits(text: str) -> dict[str, Any] | None:
    try:
        return read_declaration(text, "workload.yaml")
    except DeclarationError:
        return None


def never_differs(text: str) -> None:
    """Either refuses, or both read the same, down to the types."""
    ours, wanted = kits(text), coordinators(text)
    assert ours is None or wanted is None or repr(ours) == repr(wanted)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_workloads_are_read_as_the_coordinator_reads_them(name: str) -> None:
    found = kits(BUNDLED[name])

    assert found is not None
    assert len(found["parameters"]) > 1
    assert repr(found) == repr(coordinators(BUNDLED[name]))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    places=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 3)), min_size=1, max_size=4),
    pieces=st.lists(st.sampled_from(PIECES), min_size=4, max_size=4),
)
def test_a_damaged_file_is_never_read_differently(
    places: list[tuple[int, int]], pieces: list[str]
) -> None:
    text = WRITTEN
    for (place, removed), piece in zip(places, pieces, strict=False):
        at = place % len(text)
        text = text[:at] + piece + text[at + removed :]

    never_differs(text)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
@example(pieces=["\n   ", "\xa0"])  # which is no space
def test_any_text_is_never_read_differently(pieces: list[str]) -> None:
    never_differs("parameters:\n  a: " + "".join(pieces))
    never_differs("rules:\n- a: 1\n  b: " + "".join(pieces) + "\n- c: 2\n")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    value=st.one_of(st.text(max_size=20), st.integers(), st.floats(allow_nan=False), st.booleans())
)
def test_values_in_quotes_and_brackets_are_never_read_differently(value: object) -> None:
    never_differs(f"summary: {value}")
    never_differs(f"rules: [{value}, '{value}']")
    never_differs(f'parameters: {{a: {value}, b: "{value}"}}')


def test_what_authors_write_is_understood() -> None:
    assert kits(WRITTEN) is not None
    assert repr(kits(WRITTEN)) == repr(coordinators(WRITTEN))


@pytest.mark.parametrize(
    "text, line",
    [
        ("parameters: &x\n  a: 1\n", 1),
        ("parameters:\n  a: *x\n", 2),
        ("parameters:\n  a: !!str 1\n", 2),
        ("parameters:\n  a: |\n    text\n", 2),
        ("parameters:\n  a: one\n    two\n", 3),
        ('parameters:\n  a: "tab\\t"\n', 2),
        ("parameters:\n  a: [1,\n    2]\n", 2),
        ("parameters:\n\ta: 1\n", 2),
        ("parameters:\n  a: 1\n  a: 2\n", 3),
        ("parameters:\n  a: 1\n   b: 2\n", 3),
        ("parameters:\n  a: b: c\n", 2),
        ("parameters: {a: 1, a: 2}\n", 1),
        ("parameters:\n  a: 1\nparameters:\n  b: 1\n", 3),
        ("- a\n", 1),
        ("rules: " + "[" * 40 + "\n", 1),
    ],
)
def test_what_is_not_plain_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(DeclarationError, match=rf"^workload\.yaml:{line}: .*plain YAML"):
        read_declaration(text, "workload.yaml")
