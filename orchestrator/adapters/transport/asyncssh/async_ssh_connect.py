"""Connecting with asyncssh: keys, host keys, algorithms, and what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh
from asyncssh.constants import MSG_IGNORE

from orchestrator.adapters.transport.asyncssh.async_ssh_algorithms import algorithm_options
from orchestrator.adapters.transport.asyncssh.async_ssh_keys import key_pairs, public_key
from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.known_hosts import HostKey, Trust
from orchestrator.adapters.transport.ssh.proxy import ProxyProcess
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.ssh_config.canonical import FAMILIES
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import PreflightError, SourceLocation

AUTHENTICATING = ("aes128-gcm", "aes256-gcm", "chacha20-poly1305")


class _Client(asyncssh.SSHClient):
    """Hands out keys one by one and remembers what a server showed and saw."""

    def __init__(self, keys: Sequence[asyncssh.SSHKeyPair]) -> None:
        self._keys = list(keys)
        self.tried: list[str] = []
        self.shown: HostKey | None = None

    def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        if not self._keys:
            return None
        key = self._keys.pop(0)
        self.tried.append(key.get_comment() or key.get_algorithm())
        return key

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        del host, addr, port
        self.shown = HostKey(key.get_algorithm(), key.public_data, SourceLocation(""))
        return False


@dataclass(frozen=True, slots=True)
class AuthenticatedConnection:
    """An authenticated connection, and the ProxyCommand that carries it, if there is one."""

    connection: asyncssh.SSHClientConnection
    proxy: ProxyProcess | None


async def connect_once(
    target: Target, limits: ConnectLimits, *, via: asyncssh.SSHClientConnection | None
) -> AuthenticatedConnection:
    """Connect and authenticate within ``limits.connect_timeout_s``; one attempt.

    ``via`` is the connection to ``target.via``. Raises :class:`PreflightError`.
    """
    if via is not None or not target.proxy_command:
        return AuthenticatedConnection(await _connect_by(target, limits, {"tunnel": via}), None)
    try:
        proxy = await asyncio.to_thread(ProxyProcess, target.proxy_command)
    except OSError as error:
        raise failures.no_proxy(target, str(error)) from error
    try:
        return AuthenticatedConnection(await _connect_through(proxy, target, limits), proxy)
    except BaseException:
        await asyncio.to_thread(proxy.close)
        raise


async def _connect_through(
    proxy: ProxyProcess, target: Target, limits: ConnectLimits
) -> asyncssh.SSHClientConnection:
    try:
        return await _connect_by(target, limits, {"sock": proxy.sock})
    except PreflightError as error:
        raise await asyncio.to_thread(failures.through_proxy, target, proxy, error) from error


async def _connect_by(
    target: Target, limits: ConnectLimits, carrier: Mapping[str, Any]
) -> asyncssh.SSHClientConnection:
    trust = target.trust()
    async with contextlib.AsyncExitStack() as stack:
        client = _Client(await key_pairs(target, stack))
        try:
            async with asyncio.timeout(limits.connect_timeout_s):
                connection = await asyncssh.connect(
                    target.host,
                    target.port,
                    client_factory=lambda: client,
                    **carrier,
                    **_trust_options(trust),
                    **algorithm_options(target, trust),
                    **_fixed_options(target, limits),
                )
                _send_no_fillers(connection)
                return connection
        except (OSError, ValueError, asyncssh.Error) as error:
            raise _explain_error(error, target, trust, client, limits) from error


def _send_no_fillers(connection: asyncssh.SSHClientConnection) -> None:
    """asyncssh precedes each packet with an empty one, which hides the chaining of CBC's initial
    vectors. Ciphers that authenticate have none, and large uploads are a third cheaper without.
    """
    if not str(connection.get_extra_info("send_cipher")).startswith(AUTHENTICATING):
        return
    send = connection.send_packet

    def send_packet(pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != MSG_IGNORE:
            send(pkttype, *args, handler=handler)

    connection.send_packet = send_packet  # type: ignore[method-assign]


def _fixed_options(target: Target, limits: ConnectLimits) -> dict[str, Any]:
    return {
        "config": None,
        "username": target.user,
        "family": FAMILIES[target.family],
        "local_addr": (target.bind_address, 0) if target.bind_address else None,
        "client_keys": None,  # the client hands them out; a list would add the agent's to it
        "agent_path": None,
        "agent_forwarding": False,
        "preferred_auth": "publickey",
        "gss_host": None,
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": (),
        "compression_algs": None,
        "connect_timeout": None,
        "login_timeout": limits.connect_timeout_s,
        "keepalive_interval": limits.keepalive_interval_s,
        "keepalive_count_max": limits.keepalive_count,
    }


# Host keys --------------------------------------------------------------------------------------


def _trust_options(trust: Trust) -> dict[str, Any]:
    keys = (trust.keys, trust.authorities, trust.revoked)
    return {"known_hosts": tuple([*_parse_keys(group)] for group in keys)}


def _parse_keys(keys: Sequence[HostKey]) -> list[asyncssh.SSHKey]:
    parsed = []
    for key in keys:
        with contextlib.suppress(asyncssh.KeyImportError):  # a type that asyncssh does not know
            parsed.append(public_key(key.kind, key.blob))
    return parsed


# What went wrong --------------------------------------------------------------------------------


def _explain_error(
    error: Exception, target: Target, trust: Trust, client: _Client, limits: ConnectLimits
) -> PreflightError:
    why = str(error) or type(error).__name__
    match error:
        case asyncssh.PermissionDenied():
            return failures.refused_authentication(target, tuple(client.tried), why)
        case asyncssh.HostKeyNotVerifiable():
            return failures.refused_host_key(target, trust, client.shown, why)
        case asyncssh.ChannelOpenError():
            assert target.via is not None
            return failures.unreachable_error(
                target, f"{target.via.alias} could not connect: {why}"
            )
        case TimeoutError():
            return failures.unreachable_error(
                target, f"no answer within {limits.connect_timeout_s:g} s"
            )
        case socket.gaierror():
            return failures.unresolvable_error(target, why)
        case asyncssh.ConnectionLost() | ConnectionResetError() | BrokenPipeError():
            return failures.handshake_cut(target, why)
        case OSError():
            return failures.unreachable_error(target, why)
        case asyncssh.DisconnectError() if client.tried:
            return failures.refused_authentication(target, tuple(client.tried), why)
        case _:
            return failures.no_agreement(target, why, other="paramiko")
