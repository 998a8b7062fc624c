"""A command's side: a connection that the broker holds, or the word that it cannot be had there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from orchestrator.adapters.transport.broker.broker_messages import (
    attach_request,
    message,
    read_error,
    read_message,
)
from orchestrator.adapters.transport.broker.find_broker import has_started_one, reach_broker
from orchestrator.adapters.transport.multiplex.multiplex_link import MultiplexLink, NoMaster
from orchestrator.adapters.transport.multiplex.multiplex_messages import MalformedMessage
from orchestrator.adapters.transport.multiplex.multiplex_transport import MultiplexTransport
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import SshEndpoint

SILENCE_S = 4.0  # a broker says every second that it works on it
IMPORTS_S = 15.0  # one that was just started loads an SSH library first


class AttachedConnection:
    """A connection that the broker lends until the socket closes."""

    def __init__(self, target: Target) -> None:
        self.endpoint: SshEndpoint = target.endpoint
        self.environment: Sequence[tuple[str, str]] = target.env

    def release(self) -> None:
        """The end of the socket says it."""


class BrokerLink(MultiplexLink):
    """The socket of the broker."""

    def __init__(self, request: bytes) -> None:
        super().__init__()
        self._request = request

    def _greet(self) -> None:
        self.write(self._request)

    def _on_greeting(self, message: bytes) -> None:
        fields = read_message(message)
        match fields.get("state"):
            case "waiting":
                return
            case "attached":
                self._become_ready()
            case "failed" if not self.ready.done():
                try:
                    self.ready.set_exception(read_error(fields))
                except KeyError as error:
                    raise MalformedMessage(f"an error without {error}") from error
            case state:
                raise MalformedMessage(f"an answer of state {state!r}")


def can_be_kept(target: Target) -> bool:
    """Whether the broker would make the same connection: what a ProxyCommand does may depend on
    this process's environment, and where a relative path leads on its working directory.
    """
    return all(map(_is_reached_alike, target.stations()))


def _is_reached_alike(station: Target) -> bool:
    files = (
        *station.known_hosts_files,
        *station.identity_files,
        *station.certificate_files,
        *filter(None, (station.revoked_keys_file, station.agent)),
    )
    return not station.proxy_command and all(map(os.path.isabs, files))


class BrokerClient:
    """The broker as the transports of one event loop know it. Once it has failed to serve, they
    connect by themselves.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._failed = False
        self._starting = has_started_one()

    async def open(
        self, node: str, target: Target, limits: ConnectLimits, keep_s: int
    ) -> MultiplexTransport | None:
        """A transport over a connection that then stays for ``keep_s`` seconds; None: the caller
        connects by itself.

        Raises ``PreflightError`` and ``UsageError``: what became of the broker's connecting.
        """
        request = message(attach_request(target, limits, keep_s))
        link = None if self._failed else await self._reach(request)
        try:
            if link is not None:
                await self._until_attached(link)
                return MultiplexTransport(node, AttachedConnection(target), link, limits)
        except NoMaster:
            pass
        self._failed = True
        return None

    async def _reach(self, request: bytes) -> BrokerLink | None:
        connection = reach_broker(self._environ)
        if connection is None:
            return None
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: BrokerLink(request), sock=connection)
        return link

    async def _until_attached(self, link: BrokerLink) -> None:
        """Raises ``NoMaster`` when the broker ended or says nothing, and the error it reports."""
        try:
            while not link.ready.done():
                heard_at = link.heard_at
                silence_s = IMPORTS_S if self._starting else SILENCE_S
                await asyncio.wait((link.ready,), timeout=silence_s)
                if link.heard_at == heard_at and not link.ready.done():
                    raise NoMaster("the broker does not answer")
                self._starting = False
            await link.ready
        except BaseException:
            link.ready.cancel()
            link.cut("not attached")
            raise
