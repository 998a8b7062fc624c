"""Output that nobody reads, or not soon, costs the writer nothing."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from orchestrator.view.terminal.outlet import Outlet, Outlets, independent_output
from tests.hosts.running import wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        os.close(fd)


def test_a_reader_that_stands_still(pipe: tuple[int, int]) -> None:
    """Beyond the backlog whole writes are left out and counted; what was taken arrives in order."""
    read, write = pipe
    outlet = Outlet(terminal=False, limit=1 << 20)
    line = b"x" * 1023 + b"\n"
    for _ in range(4096):
        outlet.take(write, line)
    assert 0 < outlet.left_out < 4096
    got = bytearray()

    def drink() -> None:
        while len(got) < (4096 - outlet.left_out) * len(line):
            got.extend(os.read(read, 65536))

    reader = threading.Thread(target=drink)
    reader.start()
    outlet.drain(10)
    reader.join(10)
    assert bytes(got) == line * (4096 - outlet.left_out)


def test_a_patient_outlet_leaves_nothing_out(pipe: tuple[int, int]) -> None:
    """The writer waits instead."""
    read, write = pipe
    outlet = Outlet(terminal=False, limit=1 << 16)
    outlet.patient = True
    total = 64 << 14

    def write_all() -> None:
        for _ in range(64):
            outlet.take(write, b"y" * (1 << 14))

    writer = threading.Thread(target=write_all)
    writer.start()
    got = 0
    while got < total:
        got += len(os.read(read, 65536))
    writer.join(10)
    assert (got, outlet.left_out) == (total, 0)


def test_a_reader_that_left() -> None:
    """Nothing is raised, nothing is kept, and nobody waits."""
    read, write = os.pipe()
    os.close(read)
    outlet = Outlet(terminal=False)
    outlet.take(write, b"lost\n")
    wait_until("the outlet noticed", lambda: outlet.gone, 10)
    outlet.take(write, b"lost\n")
    outlet.drain(10)
    os.close(write)


def test_a_full_disk_is_told() -> None:
    """Unlike a reader who left, it took what somebody wants to have."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        outlets = Outlets()
        outlets.replace(full).write("lost\n")
        outlets.flush(10)
        assert outlets.refusal() == "No space left on device"
        outlets.close()


def test_two_streams_of_one_file_keep_their_order(pipe: tuple[int, int]) -> None:
    """As with ``2>&1``: what is written alternately is read alternately."""
    read, write = pipe
    twin = os.dup(write)
    outlets = Outlets()
    with os.fdopen(write, "w", closefd=False) as out, os.fdopen(twin, "w", closefd=False) as err:
        first, second = outlets.replace(out), outlets.replace(err)
        for number in range(500):
            (first if number % 2 else second).write(f"{number}\n")
        outlets.flush(10)
    os.close(twin)
    assert os.read(read, 65536).split() == [b"%d" % number for number in range(500)]


def test_what_is_no_file_stays_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Streams that live in memory are written to directly, and come back unchanged."""
    before = sys.stdout
    with independent_output():
        sys.stdout.write("seen\n")
    assert sys.stdout is before
    assert capsys.readouterr().out == "seen\n"
