"""How the division of work between unequal hosts is judged."""

from __future__ import annotations

import pytest
from bench_lib.partition import Round, figures, partition_markdown


def rounds(*ours: float) -> list[Round]:
    return [Round(fast=20.0, slow=7.0, even=14.5, ours=each, survivors=26.9) for each in ours]


@pytest.mark.parametrize("ours,word", [((26.0, 26.3, 26.4), "met"), ((26.4, 26.0, 26.1), "MISSED")])
def test_the_median_share_of_the_solo_rates_is_judged(ours: tuple[float, ...], word: str) -> None:
    """97 % of what the hosts can do by themselves; an even split is shown, not judged."""
    mine, even, survivors = figures(rounds(*ours))

    assert mine.word == word
    assert even.median == pytest.approx(14.5 / 27.0)
    assert (even.word, survivors.word) == ("", "met")


def test_the_report_shows_every_rate() -> None:
    """Rates and shares with their spread, and the machine."""
    text = partition_markdown({"processor": "two cores"}, rounds(26.0, 26.4, 26.5))

    for words in ("two cores", "26.40 (26.00..26.50)", "97.8% (96.3%..98.1%)", ">= 97%", "met"):
        assert words in text
