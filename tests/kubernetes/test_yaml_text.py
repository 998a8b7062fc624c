"""What is written is what every reader of YAML reads, whatever stands in it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from orchestrator.core.kubernetes.yaml_text import Noted, render_yaml
from tests.kubernetes.exported import as_json

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["no", "Null", "~", "0x1", "1e3", "2026-12-01", "- a", "a: b", "# c", "", " ", "$(HOME)", "y"]
)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def noted(value: object, notes: tuple[str, ...]) -> object:
    """``value`` with a comment above each thing in it."""
    if isinstance(value, dict):
        value = {key: noted(item, notes) for key, item in value.items()}
    elif isinstance(value, list):
        value = [noted(item, notes) for item in value]
    return Noted(value, notes)


@settings(max_examples=60)
@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.lists(TEXTS, max_size=2).map(tuple))
def test_readers_get_what_was_written(document: dict[str, object], notes: tuple[str, ...]) -> None:
    """By YAML 1.1 and 1.2, with comments and without them."""
    commented = {key: noted(item, notes) for key, item in document.items()}

    for text in (render_yaml(document), render_yaml(commented, notes)):
        assert as_json(YAML(typ="safe").load(text) or {}) == as_json(document)
        assert as_json(yaml.load(text, yaml.CSafeLoader) or {}) == as_json(document)


def test_comments_stand_above_what_they_explain() -> None:
    document = {"env": [Noted({"name": "A", "value": "1"}, ("why A", "and\nmore"))], "count": 1}

    assert render_yaml(document, ["a job"]).splitlines() == [
        "# a job",
        "env:",
        "  # why A",
        "  # and more",
        "  - name: A",
        '    value: "1"',
        "count: 1",
    ]


@pytest.mark.parametrize("value", [1.5, None, b"", object()])
def test_what_no_manifest_has_is_a_fault_of_ours(value: object) -> None:
    with pytest.raises(TypeError, match="a manifest has no"):
        render_yaml({"key": [value]})
