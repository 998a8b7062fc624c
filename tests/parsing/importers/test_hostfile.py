"""Hostfiles: by the rule of the tool that is named or recognised."""

from __future__ import annotations

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.hostfile import DEEPSPEED, MPICH, OPENMPI, parse_hostfile
from tests.parsing.importers.reading import gpus, loaded, routes


@pytest.mark.parametrize(
    "text,expected,tool",
    [
        ("a slots=8\nb slots=4  # c\n", {"a": 8, "b": 4}, "Open MPI (slots=N, as DeepSpeed"),
        ("a slots=2\na\n", {"a": 3}, "Open MPI (slots=N)"),
        ("a slots = 2\nb cpu=3 // c\nc max-slots=4\n", {"a": 2, "b": 3, "c": 4}, "Open MPI"),
        ("a:4\nb\na:2\n", {"a": 6, "b": 1}, "MPICH (host:N)"),
        ("a\nb\n", {"a": None, "b": None}, "a list of hosts"),
        ("a\na\nb\n", {"a": 2, "b": None}, "a list of hosts"),
    ],
)
def test_the_tool_is_recognised_and_said(
    text: str, expected: dict[str, int | None], tool: str
) -> None:
    """From the form of the lines; a note says which, and how to name another."""
    imported = parse_hostfile(text, "h")

    assert gpus(imported) == expected
    (note,) = imported.notes
    assert tool in note
    assert "--dialect" in note


def test_a_named_tool_is_not_guessed() -> None:
    """The same lines, by the rule of each."""
    assert gpus(parse_hostfile("a\na\n", "h", OPENMPI)) == {"a": 2}
    assert gpus(parse_hostfile("a\nb\n", "h", MPICH)) == {"a": 1, "b": 1}
    assert gpus(parse_hostfile("# c\na slots=2#c\n", "h", DEEPSPEED)) == {"a": 2}
    assert parse_hostfile("a slots=2\n", "h", DEEPSPEED).notes == ()
    with pytest.raises(UsageError, match="no host found"):
        parse_hostfile("a\n", "h", DEEPSPEED)


def test_users_and_ports() -> None:
    """``user@host``, ``username=``, and ``[address]:port``, which is ssh's."""
    text = "eve@a slots=1\nb username=bob slots=2\n[c.lab]:493\n[::1]:442\nbob@[d]:22 slots=3\n"
    imported = parse_hostfile(text, "h")

    assert routes(loaded(imported)) == {
        "a": "eve@a",
        "b": "bob@b",
        "c.lab": "c.lab:493",
        "1": "::1:442",
        "d": "bob@d:22",
    }
    assert gpus(imported)["d"] == 3
    assert [warning.split(": ", 1)[1] for warning in imported.warnings] == [
        "c.lab has no number of slots: its GPUs are those found",
        "::1 has no number of slots: its GPUs are those found",
    ]


def test_entries_of_mpich_that_lie_apart_are_said() -> None:
    """There is one entry a node here, so the ranks lie otherwise."""
    (warning,) = parse_hostfile("a:4\nb\na:2\n", "h").warnings
    assert "ranks 0-3 on a, 4 on b, 5-6 on a" in warning
    assert parse_hostfile("a:4\na:2\nb\n", "h").warnings == ()


def test_slots_that_are_no_gpus() -> None:
    imported = parse_hostfile("a slots=128\nb slots=0\nc slots=2\n", "h")

    assert gpus(imported) == {"a": None, "c": 2}
    assert imported.warnings == (
        "h:1: 128 slots are more than the GPUs of any machine: no figure is taken",
        "h:2: b has 0 slots: nothing runs there; left out",
    )


@pytest.mark.parametrize(
    "line,reason",
    [
        ("ok slots=3", "a second number of slots for the host of line 1"),
        ("ok.lab slots=3", "Open MPI takes this and the host of line 1 as one node"),
        ("this is bad slots=1", "slots=N, max_slots=N or username=NAME is expected"),
        ("b colour=red slots=1", "slots=N, max_slots=N or username=NAME is expected"),
        ("b slots=many", "a number is expected"),
        ("b slots=-1", "a number is expected"),
        ("b slots=1 cpu=2", "given twice"),
        ("b slots=4 max_slots=2", "max_slots is less than slots"),
        ("b[1-3] slots=2", "no ranges"),
        ("-oProxyCommand=x slots=1", "not a host name"),
        ("[b]:99999 slots=1", "a port is a number"),
    ],
)
def test_a_line_that_is_not_understood_stops_the_import(line: str, reason: str) -> None:
    with pytest.raises(UsageError, match="not understood") as caught:
        parse_hostfile(f"ok slots=2\n{line}\n", "h")
    assert "h:2" in str(caught.value)
    assert reason in str(caught.value)

    skipped = parse_hostfile(f"ok slots=2\n{line}\n", "h", skip_unknown=True)
    assert gpus(skipped) == {"ok": 2}


@pytest.mark.parametrize(
    "text,dialect,reason",
    [
        ("a:2\nb slots=2\n", None, "host, host:N or host:N user=NAME is expected"),
        ("a:22\nb:22\n", None, ":22 may be ssh's port"),
        ("a:2\nb:2222\n", None, "a port is written [host]:N"),
        ("a:2\nb:0\n", MPICH, "0 processes"),
        ("a slots=2\nb\n", DEEPSPEED, "host slots=N is expected"),
        ("a slots=2\nb slots=2x\n", DEEPSPEED, "host slots=N is expected"),
        ("a slots=2\na slots=2\n", DEEPSPEED, "a second entry for the host of line 1"),
    ],
)
def test_what_the_tool_itself_would_refuse_is_refused(
    text: str, dialect: str | None, reason: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_hostfile(text, "h", dialect)
    assert reason in str(caught.value)


def test_two_hosts_never_become_one_node() -> None:
    """A name that an inventory cannot hold is written otherwise, and may be taken."""
    with pytest.raises(UsageError, match="would stand for two hosts"):
        parse_hostfile("fe80::1\nfe80--1\n", "h")


def test_the_form_of_another_tool_is_named() -> None:
    """To Open MPI it is a host of that name, which is nowhere."""
    with pytest.raises(UsageError, match="--dialect mpich"):
        parse_hostfile("a:4\nb:4\n", "h", OPENMPI)
