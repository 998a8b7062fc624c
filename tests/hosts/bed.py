"""Machines for the kill loop: hosts of its own, or those of an inventory."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.core.model.inventory import Cluster, TransportKind
from tests.hosts.killing import Field
from tests.hosts.running import open_desk


@contextmanager
def hosts_of_its_own(root: Path, count: int) -> Iterator[Field]:
    """So many virtual hosts, for as long as it takes."""
    options = Options(count=count, python=sys.executable)
    with (
        VirtualHosts.up(root / "hosts", options) as hosts,
        open_desk(root, hosts.inventory) as desk,
    ):
        yield Field(desk, hosts)


@contextmanager
def hosts_of_cluster(root: Path, name: str) -> Iterator[Field]:
    """The machines of an inventory. Raises ``ValueError`` unless their workdirs are the same."""
    cluster = Catalog.from_environment({}).cluster(name)
    workdir, *others = {spec.workdir for spec in cluster.workers}
    if others:
        raise ValueError("the nodes of the cluster must have the same workdir")
    with open_desk(root, Path(cluster.source)) as desk:
        yield Field(desk, OverSsh(cluster), workdir)


class OverSsh:
    """The machines of an inventory, as `ssh` reaches them."""

    def __init__(self, cluster: Cluster) -> None:
        self._nodes = {spec.name: spec for spec in cluster.workers}

    @property
    def names(self) -> Sequence[str]:
        return list(self._nodes)

    def exec_argv(self, name: str, argv: Sequence[str]) -> list[str]:
        spec = self._nodes[name]
        if spec.transport is TransportKind.LOCAL:
            return list(argv)
        python = ["python3" if word == sys.executable else word for word in argv]
        return ["ssh", "-o", "BatchMode=yes", *spec.ssh.argv, shlex.join(python)]
