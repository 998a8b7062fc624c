"""What an answer is worth beside the one that was expected. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# Longer texts are compared by their first words: the work grows with the product of both lengths.
MAX_WORDS = 4096


def scores_of(answer: str, expected: str) -> dict[str, float]:
    """From 0 to 1. ``exact_match``: the same text but for blanks around it. ``rouge_l``: the F1 of
    the longest common subsequence of words, in lower case and without stemming (Lin, "A Package for
    Automatic Evaluation of Summaries", 2004, section 3, with beta 1).
    """
    return {
        "exact_match": float(answer.strip() == expected.strip()),
        "rouge_l": rouge_l(_words(answer), _words(expected)),
    }


def rouge_l(answer: Sequence[str], expected: Sequence[str]) -> float:
    """2 LCS / (len + len): the F1 of LCS / len(answer) and LCS / len(expected); 0 for no words."""
    if not answer or not expected:
        return 0.0
    return 2 * _longest_common(answer, expected) / (len(answer) + len(expected))


def _longest_common(some: Sequence[str], others: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(others) + 1)
    for word in some:
        diagonal = 0
        for place, other in enumerate(others, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def _words(text: str) -> list[str]:
    """Runs of letters and digits."""
    plain = "".join(c if c.isalnum() else " " for c in text.lower())
    return plain.split()[:MAX_WORDS]
