"""Hostfiles beside the tools that they are for: what Open MPI allocates, where MPICH starts."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.foreign_nodes import Imported
from orchestrator.parsing.importers.hostfile import MPICH, OPENMPI, parse_hostfile
from tests.parsing.importers.owners import mpich_entries, open_mpi_slots

pytestmark = pytest.mark.processes
COUNT = 300
# One host each, so that all stand in one file; blanks around "=", and three kinds of comments.
OPENMPI_FORMS = (
    *("{h} slots={n}", "{h} slots = {n}", "{h} cpu={n}", "{h} count={n}", "{h} max-slots={n}"),
    *(
        "{h} slots={n} max_slots=64",
        "{h} slots={n}\n{h}",
        "{h} slots={n}\n{h}\n{h}",
        "bob@{h} slots={n}",
    ),
    *("{h} username=bob slots={n}", "{h} slots={n}#c", "{h} slots={n} // c", "# c\n{h} slots={n}"),
    *("/* {h}\n x */ {h} slots={n}", "{h}\n{h}", "{h} slots_max={n}\n{h}", "  {h}\tslots=0{n}"),
    *("{h}.lab slots={n}", "{h} slots={n}\n{h} max_slots=70", "{h} user-name=bob slots= {n}"),
)
OPENMPI_REFUSED = (
    *("n1 slots=2\nn1 slots=3\n", "n1\nn1 slots=2\n", "n1 slots=2x\n", "n[1-2] slots=2\n"),
    *("n1 slots=4 max_slots=2\n", "n1 slots=-1\n", "n1 SLOTS=2\n", "n1 slots=2 foo=3\n"),
    *("n1 slots=2\nn1.lab slots=3\n", "n1 slots=2 cpu=3\n", "n1 slots\n", "n1 slots=2 slots=2\n"),
)
MPICH_FORMS = (
    *("{h}:{n}", "{h}", "{h}:{n} user=bob", "{h}:{n}#c", "# c\n{h}:{n}  # c", "bob@{h}:{n}"),
    *("{h}:{n}\n{h}:2", "{h}\n{h}", "{h}:{n}\n{h}b\n{h}:1", "{h}:{n}\n{h}b:3\n{h}", "  {h}:0{n}  "),
)
MPICH_REFUSED = ("n1 slots=2\n", "n1:4 foo\n", "n1:4 n2:3\n", "n1 :4\n")


def test_open_mpi_allocates_as_many_slots(tmp_path: Path) -> None:
    text = made(OPENMPI_FORMS, random.Random("openmpi"))
    theirs = open_mpi_slots(text, tmp_path)
    ours = {
        name.removesuffix(".lab"): count
        for name, count in gpus(parse_hostfile(text, "h", OPENMPI)).items()
    }

    assert theirs is not None
    assert len(theirs) == COUNT
    assert ours == theirs


@pytest.mark.parametrize("text", OPENMPI_REFUSED)
def test_what_open_mpi_refuses_is_refused(text: str, tmp_path: Path) -> None:
    assert open_mpi_slots(text, tmp_path) is None
    with pytest.raises(UsageError):
        parse_hostfile(text, "h", OPENMPI)


def test_mpich_starts_as_many_processes(tmp_path: Path) -> None:
    """Its entries are in their order; where a host has several apart, that is said."""
    text = made(MPICH_FORMS, random.Random("mpich"))
    imported = parse_hostfile(text, "h", MPICH)
    ours = gpus(imported)
    theirs = mpich_entries(text, sum(ours.values()), tmp_path)

    totals: Counter[str] = Counter()
    for host, count in theirs:
        totals[host.removeprefix("bob@")] += count
    assert ours == totals
    assert list(ours) == list(totals)
    several = [host for host in totals if sum(name == host for name, _ in theirs) > 1]
    assert several
    assert all(host in imported.warnings[0] for host in several[:3])


@pytest.mark.parametrize("text", MPICH_REFUSED)
def test_what_mpich_refuses_is_refused(text: str, tmp_path: Path) -> None:
    assert mpich_entries(text, 2, tmp_path) == []
    with pytest.raises(UsageError):
        parse_hostfile(text, "h", MPICH)


def made(forms: tuple[str, ...], chance: random.Random) -> str:
    pieces = (
        chance.choice(forms).format(h=f"h{at}", n=chance.randint(1, 9)) for at in range(COUNT)
    )
    return "\n".join(pieces) + "\n"


def gpus(imported: Imported) -> dict[str, int]:
    return {node.name: int(str(node.fields.get("gpus", 0))) for node in imported.nodes}
