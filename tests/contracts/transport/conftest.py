"""Servers to talk to, and one way to open each kind of transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.transport.kept_time import KEEP_VARIABLE
from orchestrator.adapters.transport.open_transport import open_transport
from orchestrator.adapters.transport.transport import ConnectLimits, Transport
from orchestrator.core.base.errors import ExitCode, PreflightError
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint, TransportKind
from tests.contracts.transport.brokers import begin_broker, broker_of_its_own
from tests.contracts.transport.sshd import Sshd
from tests.kubernetes.cluster.one_pod import serve_pod

# Fast enough to see a silent link die within a second, slow enough for a busy machine.
QUICK = ConnectLimits(connect_timeout_s=10, keepalive_interval_s=0.2, keepalive_count=4)

Open = Callable[..., Coroutine[Any, Any, Transport]]
WAYS = [kind for kind in TransportKind if kind is not TransportKind.AUTO]  # which is one of these
BROKER = "broker"
NOT_SSH = (TransportKind.LOCAL, TransportKind.KUBERNETES)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that any number of tests may use; nobody may stop it or fill its home."""
    server = Sshd(tmp_path_factory.mktemp("sshd"), options=("MaxStartups 100",))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts servers of the test's own."""
    servers: list[Sshd] = []

    def make(*, name: str = "own", start: bool = True, **options: object) -> Sshd:
        server = Sshd(tmp_path / name, **options)  # type: ignore[arg-type]
        servers.append(server)
        if start:
            server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def kept_folder() -> Iterator[Path]:
    """Where the broker of those tests is that go over one."""
    with pytest.MonkeyPatch.context() as patch, broker_of_its_own(patch, begun=False) as folder:
        yield folder


def _of_name(request: pytest.FixtureRequest) -> TransportKind:
    if request.param != BROKER:
        return TransportKind(request.param)
    folder: Path = request.getfixturevalue("kept_folder")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    patch.setenv("XDG_RUNTIME_DIR", str(folder.parent))
    patch.setenv(KEEP_VARIABLE, "60")
    begin_broker()
    return TransportKind.ASYNCSSH


@pytest.fixture(params=[*WAYS, BROKER])
def kind(request: pytest.FixtureRequest) -> TransportKind:
    """Every transport, and the default one over connections that a broker holds."""
    return _of_name(request)


@pytest.fixture(params=[*(kind for kind in WAYS if kind not in NOT_SSH), BROKER])
def ssh_kind(request: pytest.FixtureRequest) -> TransportKind:
    """Every transport that is SSH, likewise."""
    return _of_name(request)


@pytest.fixture(params=[TransportKind.ASYNCSSH, TransportKind.PARAMIKO])
def library_kind(request: pytest.FixtureRequest) -> TransportKind:
    """Every transport that is a library: what ssh_config demands is ours to do, or to refuse."""
    return TransportKind(request.param)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of the user's ``ssh`` end with their test."""
    monkeypatch.setenv(KEEP_VARIABLE, "0")


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    """Opens transports and closes them after the test."""
    async with AsyncExitStack() as stack:

        async def connect(
            server: Sshd | NodeSpec,
            kind: TransportKind = TransportKind.ASYNCSSH,
            limits: ConnectLimits = QUICK,
        ) -> Transport:
            spec = server if isinstance(server, NodeSpec) else server.node(kind)
            transport = await open_transport(spec, limits=limits)
            stack.push_async_callback(transport.close)
            return transport

        yield connect


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeSpec]:
    """A pod whose commands are processes of this machine, behind an API server and kubectl."""
    with serve_pod(tmp_path) as (spec, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield spec


@pytest.fixture
def spec(kind: TransportKind, request: pytest.FixtureRequest) -> NodeSpec:
    """A node of every kind."""
    if kind is TransportKind.LOCAL:
        return NodeSpec(name="here", transport=kind, ssh=SshEndpoint(host="localhost"))
    if kind is TransportKind.KUBERNETES:
        made: NodeSpec = request.getfixturevalue("pod")
        return made
    server: Sshd = request.getfixturevalue("sshd")
    return server.node(kind)


@pytest.fixture
async def transport(spec: NodeSpec, connect: Open) -> Transport:
    """An open transport of every kind."""
    return await connect(spec)


async def refused(connect: Open, server: Sshd | NodeSpec, kind: TransportKind) -> PreflightError:
    """The error of a connection that must fail, complete in all its parts."""
    with pytest.raises(PreflightError) as caught:
        await connect(server, kind)
    error = caught.value
    assert error.exit_code is ExitCode.PREFLIGHT
    assert error.where
    assert error.why
    assert error.remedy
    return error
