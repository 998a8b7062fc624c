"""Real servers with login shells of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.transport.sshd import Sshd

MakeSshd = Callable[..., Sshd]


@pytest.fixture(scope="module")
def make_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeSshd]:
    """Servers by login shell, shared by a module's tests: ``make_sshd(shell)``."""
    servers: dict[str, Sshd] = {}

    def make(shell: str = "/bin/sh") -> Sshd:
        if shell not in servers:
            root = tmp_path_factory.mktemp("sshd")
            # A server that takes every variable shows which ones are sent.
            options = ("AcceptEnv *", "PermitUserEnvironment no", "MaxStartups 100")
            servers[shell] = Sshd(root, shell=shell, options=options)
            servers[shell].start()
        return servers[shell]

    yield make
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def write_cluster(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Inventories of one node: ``write_cluster(server, transport, **fields)``; None = local."""

    def write(server: Sshd | None, transport: str = "asyncssh", **fields: object) -> Path:
        node: dict[str, object] = {"name": "n1", "transport": transport, **fields}
        if server is not None:
            node |= {"ssh": server.name, "ssh_config": str(server.ssh_config)}
        path = tmp_path_factory.mktemp("inventory") / "c.yaml"
        path.write_text(json.dumps({"name": "c", "nodes": [node]}))
        return path

    return write
