"""What many nodes answered to one command, equal answers once."""

from __future__ import annotations

import io

import pytest

from orchestrator.core.base.outcome import Exited
from orchestrator.view.tables.gathered import KEPT_BYTES, Gathered
from orchestrator.view.terminal.terminal import LineWriter


def shown(outputs: dict[str, bytes]) -> str:
    """stdout after each node wrote its output and ended well."""
    out, err = io.StringIO(), io.StringIO()
    gathered = Gathered(LineWriter(out), LineWriter(err))
    for node, content in outputs.items():
        gathered.output(node, "out", content)
        gathered.ended(node, Exited(0))
    assert gathered.finish() == 0
    assert err.getvalue() == ""
    return out.getvalue()


@pytest.mark.parametrize("other", [b"bar", b"bar\n", b"bar\r\n"])
def test_the_last_line_break_makes_no_difference(other: bytes) -> None:
    """Both look the same, so they are one."""
    text = shown({"n1": b"bar\n", "n2": other})
    assert text.count("bar") == 1
    assert "n[1-2] (2)" in text


@pytest.mark.parametrize("other", [b"bar\n\n", b" bar\n", b"Bar\n", b"bar\nbar\n"])
def test_what_looks_otherwise_is_shown_apart(other: bytes) -> None:
    assert "(2)" not in shown({"n1": b"bar\n", "n2": other})


def test_what_differs_behind_the_width_of_a_screen_stays_apart() -> None:
    """Lines are shown shortened, and compared whole."""
    long = b"x" * 5000
    assert "(2)" not in shown({"n1": long + b"1", "n2": long + b"2"})


def test_answers_are_in_the_order_of_names_however_they_came() -> None:
    came = {"n10": b"b\n", "n2": b"a\n", "n9": b"c\n", "n1": b"b\n"}
    heads = [line for line in shown(came).splitlines() if line.startswith("n")]
    assert heads == ["n[1,10] (2)", "n2", "n9"]


def test_failures_are_in_the_order_of_names_however_they_came() -> None:
    gathered = Gathered(LineWriter(io.StringIO()), LineWriter(io.StringIO()))
    for node, code in {"n10": 3, "n2": 1, "n9": 3, "n1": 3}.items():
        gathered.ended(node, Exited(code))
    assert list(gathered.told.values()) == [["n1", "n9", "n10"], ["n2"]]


def test_an_output_that_is_cut_says_so() -> None:
    assert "more than 4 MiB" in shown({"n1": b"y" * KEPT_BYTES + b"\ny"})
    assert "more than" not in shown({"n1": b"y" * (KEPT_BYTES - 1) + b"\n"})
