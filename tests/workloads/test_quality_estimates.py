"""Perplexity and accuracy: values, errors and intervals against simulation and known cases."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import pytest

from orchestrate_models.repeats import Z
from quality.dataset import BUNDLED, Question, Text, read_items
from quality.estimates import accuracy, perplexity


def test_perplexity_is_that_of_all_tokens_together() -> None:
    """Not the mean over texts: long texts count as their tokens do."""
    found = perplexity([math.log(2) * 3, math.log(8) * 1], [3, 1])
    assert found.value == pytest.approx(math.exp(math.log(2) * 1.5))
    uniform = perplexity([math.log(50) * n for n in (4, 9, 2)], [4, 9, 2])
    assert uniform.value == pytest.approx(50)
    assert uniform.error == pytest.approx(0, abs=1e-6)


def test_the_error_of_perplexity_is_how_it_varies_over_draws() -> None:
    """Of 400 draws of 60 texts: their scatter is the stated error, and 95 % intervals hold the true
    value nearly as often.
    """
    source = random.Random(7)
    true = math.exp(2.0)

    def draw() -> tuple[list[float], list[int]]:
        tokens = [source.randint(20, 80) for _ in range(60)]
        return [n * source.gauss(2.0, 0.5) for n in tokens], tokens

    found = [perplexity(*draw()) for _ in range(400)]
    scatter = statistics.stdev(one.value for one in found)
    stated = statistics.fmean(one.error or 0.0 for one in found)
    assert stated == pytest.approx(scatter, rel=0.1)
    inside = sum((one.low or 0) <= true <= (one.high or 0) for one in found) / len(found)
    assert 0.91 <= inside <= 0.98


def test_one_text_has_no_error() -> None:
    found = perplexity([3.0], [3])
    assert (found.value, found.error, found.low) == (pytest.approx(math.e), None, None)
    with pytest.raises(ValueError, match="no token"):
        perplexity([0.0], [0])


@pytest.mark.parametrize("right, count", [(0, 10), (3, 10), (10, 10), (500, 1000)])
def test_the_interval_of_accuracy_solves_wilsons_equation(right: int, count: int) -> None:
    found = accuracy(right, count)
    part = right / count
    assert found.value == part
    for end in (found.low, found.high):
        assert end is not None
        assert (part - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / count, abs=1e-12)
    with pytest.raises(ValueError, match="of 0 questions"):
        accuracy(0, 0)


def test_the_bundled_lines_are_texts_and_questions() -> None:
    items = read_items(BUNDLED, 0)
    kinds = [type(item) for item in items]
    assert (kinds.count(Text), kinds.count(Question)) == (10, 10)
    assert [item.line for item in read_items(BUNDLED, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "line, why",
    [
        ("{", "not JSON"),
        ('{"text": ""}', "expected"),
        ('{"prompt": "x"}', "expected"),
        ('{"question": "q", "choices": ["a"], "answer": 0}', "expected"),
        ('{"question": "q", "choices": ["a", "b"], "answer": 2}', "answer 2 of 2 choices"),
        ('{"question": "q", "choices": ["a", "b"], "answer": true}', "the number of a choice"),
        ('{"question": "q", "choices": ["a", "b", 3], "answer": 0}', "not empty"),
        ('{"text": "%s"}' % ("x" * 2**20), "longer than"),
    ],
)
def test_a_wrong_line_is_named(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=r"data\.jsonl:3: .*" + why):
        read_items(path, 0)
