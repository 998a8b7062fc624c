"""Hostfiles beside the tools that they are for: what Open MPI allocates, where MPICH starts.

``scripts/hostfile_owners`` asks Open MPI 5 and DeepSpeed, which need not be installed; what they
agreed on stands here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.hostfile import DEEPSPEED, MPICH, OPENMPI, parse_hostfile
from tests.parsing.importers.hostfiles import (
    COUNT,
    DEEPSPEED_FORMS,
    DEEPSPEED_REFUSED,
    MPICH_FORMS,
    MPICH_REFUSED,
    OPENMPI_FORMS,
    OPENMPI_REFUSED,
    composed_for_deepspeed,
    composed_for_openmpi,
    gpus_of,
    made_of,
)
from tests.parsing.importers.owners import mpich_entries, open_mpi_slots

pytestmark = pytest.mark.processes
MADE_FOR_OPENMPI = {
    "by kinds": made_of(OPENMPI_FORMS, random.Random("openmpi")),
    "word by word": composed_for_openmpi(random.Random("openmpi"), COUNT),
}


@pytest.mark.parametrize("text", MADE_FOR_OPENMPI.values(), ids=MADE_FOR_OPENMPI)
def test_open_mpi_allocates_as_many_slots(
    text: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", COUNT)
    theirs = open_mpi_slots(text, tmp_path)
    ours = {
        name.removesuffix(".lab"): count
        for name, count in gpus_of(parse_hostfile(text, "h", OPENMPI)).items()
    }

    assert theirs is not None
    assert len(theirs) == COUNT
    assert ours == theirs


@pytest.mark.parametrize("text", OPENMPI_REFUSED)
def test_what_open_mpi_refuses_is_refused(text: str, tmp_path: Path) -> None:
    assert open_mpi_slots(text, tmp_path) is None
    with pytest.raises(UsageError):
        parse_hostfile(text, "h", OPENMPI)


def test_mpich_starts_as_many_processes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Its entries are in their order; where a host has several apart, that is said."""
    record_property("inputs", COUNT)
    text = made_of(MPICH_FORMS, random.Random("mpich"))
    imported = parse_hostfile(text, "h", MPICH)
    ours = gpus_of(imported)
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


@pytest.mark.parametrize("form", DEEPSPEED_FORMS)
def test_lines_that_deepspeed_read_alike(form: str) -> None:
    imported = parse_hostfile(form.format(h="h1", n=4) + "\n", "h", DEEPSPEED)

    assert list(gpus_of(imported).values()) == [4]


@pytest.mark.parametrize("text", DEEPSPEED_REFUSED)
def test_what_deepspeed_refused_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_hostfile(text, "h", DEEPSPEED)


def test_files_of_deepspeed_have_each_host_once() -> None:
    text = composed_for_deepspeed(random.Random("deepspeed"), COUNT)

    assert len(gpus_of(parse_hostfile(text, "h", DEEPSPEED))) == COUNT
