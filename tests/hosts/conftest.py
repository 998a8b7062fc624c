"""Virtual hosts for tests.  A missing tool or missing root is a failure, never a skip."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.processes import VirtualHostsError
from virtual_hosts_lib.state import Options

from tests.hosts.running import RANK, Desk, open_desk

RaiseHosts = Callable[[Path, Options], VirtualHosts]


def _raise_hosts(directory: Path, options: Options) -> VirtualHosts:
    try:
        return VirtualHosts.up(directory, options)
    except VirtualHostsError as error:
        pytest.fail(f"virtual hosts cannot be made here: {error}", pytrace=False)


@pytest.fixture(scope="session")
def raise_hosts() -> RaiseHosts:
    """A function that brings up a set of one's own, or fails the test with the reason."""
    return _raise_hosts


@pytest.fixture(scope="session")
def virtual_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualHosts]:
    """Three hosts, vh1 to vh3, for the whole test session (one set per xdist worker)."""
    directory = tmp_path_factory.mktemp("virtual-hosts")
    with _raise_hosts(directory, Options(count=3, python=sys.executable)) as hosts:
        yield hosts


@pytest.fixture
def hosts(virtual_hosts: VirtualHosts) -> Iterator[VirtualHosts]:
    """The session's hosts, healed of every fault when the test ends."""
    yield virtual_hosts
    virtual_hosts.heal()


@pytest.fixture
def desk(hosts: VirtualHosts, tmp_path: Path) -> Iterator[Desk]:
    """A project with ``rank.py`` and a home, from which runs are started on the hosts."""
    with open_desk(tmp_path, hosts.inventory) as desk:
        desk.script("rank.py", RANK)
        yield desk
