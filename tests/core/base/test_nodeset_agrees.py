"""Node sets beside ClusterShell's: the same names, and what each folds the other expands."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from orchestrator.core.base.nodeset import expand_nodeset, fold_nodeset
from tests.parsing.importers.owners import cluster_shell

pytestmark = pytest.mark.processes
COUNT = 300


def test_sets_mean_what_cluster_shell_makes_of_them(
    record_property: Callable[[str, object], None],
) -> None:
    record_property("inputs", COUNT)
    chance = random.Random("node sets")
    texts = [",".join(make_term(chance) for _ in range(chance.randint(1, 3))) for _ in range(COUNT)]
    theirs = cluster_shell(texts)

    for text, (names, folded) in zip(texts, theirs, strict=True):
        assert set(expand_nodeset(text)) == set(names), text
        assert set(expand_nodeset(folded)) == set(names), folded


def test_cluster_shell_reads_what_is_folded_here(
    record_property: Callable[[str, object], None],
) -> None:
    record_property("inputs", COUNT)
    chance = random.Random("folded")
    sets = [{make_name(chance) for _ in range(chance.randint(1, 12))} for _ in range(COUNT)]
    theirs = cluster_shell([fold_nodeset(names) for names in sets])

    for names, (read, _) in zip(sets, theirs, strict=True):
        assert names == set(read)


def make_term(chance: random.Random) -> str:
    """Up to two brackets, with a suffix or none; both ends of a range are padded alike."""
    brackets = (
        f"{chance.choice('abr')}[{make_ranges(chance)}]" for _ in range(chance.randint(0, 2))
    )
    return (
        chance.choice(["n", "gpu", "x1"]) + "".join(brackets) + chance.choice(["", "-ib", ".lab"])
    )


def make_ranges(chance: random.Random) -> str:
    width = chance.choice([1, 2, 3])
    low = chance.randint(0, 12 if width > 1 else 9)
    high = low + chance.randint(0, 5)
    if width == 1 or chance.random() < 0.3:
        return f"{low:0{width}d}-{high:0{width}d}" if width > 1 else f"{low}-{high}"
    return f"{low:0{width}d}"


def make_name(chance: random.Random) -> str:
    return f"{chance.choice(['n', 'r1n'])}{chance.randint(0, 12):0{chance.choice([1, 2])}d}"
