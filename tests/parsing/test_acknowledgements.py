"""The file of accepted changes: every mistake is shown with its place and the right form."""

from __future__ import annotations

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.core.detection.night_series import Acknowledgement
from orchestrator.parsing.inputs.nights.acknowledgements import parse_acknowledgements

GOOD = """\
- series: finetune/*
  expires: 2026-12-24
  reason: the new tokenizer is slower, and wanted
"""


def test_entries_are_read() -> None:
    (found,) = parse_acknowledgements(GOOD, "ack.yaml")

    reason = "the new tokenizer is slower, and wanted"
    assert found == Acknowledgement(series="finetune/*", expires="2026-12-24", reason=reason)
    assert parse_acknowledgements("", "ack.yaml") == ()


@pytest.mark.parametrize(
    "text, place, words",
    [
        ("series: x\n", "ack.yaml:1:1", "expected a list"),
        (GOOD.replace("2026-12-24", "soon"), "ack.yaml:2:12", "not a date"),
        (GOOD.replace("2026-12-24", "2026-02-30"), "ack.yaml:2:12", "not a date"),
        (GOOD.replace("reason", "raeson"), "ack.yaml:3:3", "raeson"),
        (GOOD.replace("  expires: 2026-12-24\n", ""), "ack.yaml:1:3", "expires"),
        ("- 7\n", "ack.yaml:1:3", "valid"),
        ("- [", "ack.yaml:1", ""),
    ],
)
def test_mistakes_have_their_place_and_the_form(text: str, place: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_acknowledgements(text, "ack.yaml")

    assert place in str(caught.value)
    assert words in str(caught.value)
    assert int(caught.value.exit_code) == 2
