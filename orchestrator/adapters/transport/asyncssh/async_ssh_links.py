"""asyncssh connections, and the jump hosts' connections that they share.

Thirty nodes behind one bastion need one handshake with the bastion, not thirty.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import asyncssh

from orchestrator.adapters.transport.asyncssh.async_ssh_connect import (
    AuthenticatedConnection,
    connect_once,
)
from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.handshakes import Handshakes
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import PreflightError

CLOSE_TIMEOUT_S = 2.0


@dataclass(slots=True, eq=False)
class _Jump:
    """A shared link to a jump host; it closes when ``users`` falls to zero."""

    target: Target
    opening: asyncio.Task[SshLink]
    users: int = 0

    @property
    def usable(self) -> bool:
        if not self.opening.done():
            return True
        if self.opening.cancelled() or self.opening.exception():
            return False
        return not self.opening.result().connection.is_closed()


@dataclass(frozen=True, slots=True)
class SshLink:
    """An authenticated connection; ``close`` also gives back the jump host it came through, and
    ends its ProxyCommand.
    """

    links: Links
    connected: AuthenticatedConnection
    jump: _Jump | None

    @property
    def connection(self) -> asyncssh.SSHClientConnection:
        return self.connected.connection

    async def close(self) -> None:
        """Say goodbye, wait a little, cut. Never raises."""
        self.connection.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.connection.wait_closed()
        except (TimeoutError, asyncssh.Error, OSError):
            self.connection.abort()
        finally:
            if self.connected.proxy is not None:
                await asyncio.to_thread(self.connected.proxy.close)
            if self.jump is not None:
                await self.links.release(self.jump)


class Links:
    """Opens links; knows the jump hosts that are open."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes
        self._jumps: dict[Target, _Jump] = {}

    async def open(self, target: Target, limits: ConnectLimits) -> SshLink:
        """Connect to ``target`` through its jump hosts. Raises :class:`PreflightError`."""
        jump = await self._acquire(target, limits) if target.via is not None else None
        via = jump.opening.result().connection if jump else None
        try:
            connected = await self._handshakes.perform(
                target.server, lambda: connect_once(target, limits, via=via)
            )
        except BaseException:
            if jump is not None:
                await self.release(jump)
            raise
        return SshLink(self, connected, jump)

    async def _acquire(self, target: Target, limits: ConnectLimits) -> _Jump:
        hop = target.via
        assert hop is not None
        jump = self._jumps.get(hop)
        if jump is None or not jump.usable:
            jump = _Jump(hop, asyncio.create_task(self.open(hop, limits)))
            self._jumps[hop] = jump
        jump.users += 1
        try:
            await asyncio.shield(jump.opening)
        except PreflightError as error:
            await self.release(jump)
            raise failures.failed_jump(target, hop, error) from error
        except BaseException:
            await self.release(jump)
            raise
        return jump

    async def release(self, jump: _Jump) -> None:
        """One user less. The last one closes the link."""
        jump.users -= 1
        if jump.users:
            return
        if self._jumps.get(jump.target) is jump:
            del self._jumps[jump.target]
        jump.opening.cancel()
        with contextlib.suppress(PreflightError, asyncio.CancelledError):
            await (await jump.opening).close()
