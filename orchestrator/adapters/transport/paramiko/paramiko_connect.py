"""Connecting with paramiko: jump hosts, host keys, keys, and what went wrong. Everything blocks."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakSet

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_REQUEST
from paramiko.ssh_exception import IncompatiblePeer

from orchestrator.adapters.transport.paramiko.paramiko_algorithms import (
    disabled_keys,
    set_algorithms,
)
from orchestrator.adapters.transport.paramiko.paramiko_keys import offered_keys
from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.known_hosts import HostKey, Trust
from orchestrator.adapters.transport.ssh.proxy import ProxyProcess
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.ssh_config.canonical import FAMILIES
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import PreflightError, SourceLocation

logging.getLogger("paramiko").addHandler(logging.NullHandler())


def _handle_channel_request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    position = message.packet.tell()
    if message.get_text() == "exit-signal":
        message.get_boolean()
        link = channel.get_transport()
        assert isinstance(link, ParamikoLink)
        link.exit_signals[channel.get_id()] = message.get_text()
        channel.status_event.set()
    message.packet.seek(position)
    channel._handle_request(message)  # type: ignore[attr-defined]  # noqa: SLF001


def _handle_channel_close(channel: paramiko.Channel, message: paramiko.Message) -> None:
    link = channel.get_transport()
    assert isinstance(link, ParamikoLink)
    link.closed_by_server.add(channel)
    channel._handle_close(message)  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a connection runs over, and the ProxyCommand behind it, if there is one."""

    sock: socket.socket | paramiko.Channel
    proxy: ProxyProcess | None = None

    def close(self) -> None:
        self.sock.close()
        if self.proxy is not None:
            self.proxy.close()


class ParamikoLink(paramiko.Transport):
    """A connection that also hears exit signals and who closed a channel. paramiko drops both:
    killed looks like lost, and a link that broke looks, for a moment, like a server that is done.

    ``exit_signals`` holds signal names without ``SIG`` by channel number, ``closed_by_server`` the
    channels that the server closed, as long as anybody has them.
    """

    _channel_handler_table: ClassVar = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001
        MSG_CHANNEL_REQUEST: _handle_channel_request,
        MSG_CHANNEL_CLOSE: _handle_channel_close,
    }

    def __init__(self, carrier: Carrier, disabled: Mapping[str, Sequence[str]]) -> None:
        super().__init__(carrier.sock, disabled_algorithms=disabled)
        self.exit_signals: dict[int, str] = {}
        self.closed_by_server: WeakSet[paramiko.Channel] = WeakSet()
        self.killing = threading.Lock()  # one session at a time is for killing
        self._carrier = carrier
        self._why_cut = ""

    @property
    def proxy(self) -> ProxyProcess | None:
        """The ProxyCommand that carries it."""
        return self._carrier.proxy

    def cut(self, reason: str) -> None:
        """Drop the connection without waiting for anybody."""
        self._why_cut = self._why_cut or reason
        self.active = False
        self.packetizer.close()
        self._carrier.close()

    def why_dead(self) -> str:
        """What ended the connection."""
        return self._why_cut or str(self.saved_exception or "") or "the SSH connection is lost"


def connect_chain(target: Target, limits: ConnectLimits) -> list[ParamikoLink]:
    """The chain of connections that ends at ``target``. Raises :class:`PreflightError`."""
    chain: list[ParamikoLink] = []
    try:
        for hop in _hops_to(target):
            try:
                chain.append(_connect_hop(hop, limits, chain[-1] if chain else None))
            except PreflightError as error:
                raise (
                    error if hop is target else failures.failed_jump(target, hop, error)
                ) from error
    except BaseException:
        for link in reversed(chain):
            link.cut("the next hop failed")
        raise
    return chain


def _hops_to(target: Target) -> list[Target]:
    hops = [target]
    while hops[0].via is not None:
        hops.insert(0, hops[0].via)
    return hops


def _connect_hop(target: Target, limits: ConnectLimits, via: ParamikoLink | None) -> ParamikoLink:
    trust = target.trust()
    with _errors_explained(target, limits):
        link = ParamikoLink(_open_carrier(target, limits, via), disabled_keys(target))
    try:
        set_algorithms(link, target, trust)
        with _errors_explained(target, limits):
            _negotiate_link(link, limits)
        _check_host_key(link, target, trust)
        _authenticate_link(link, target, limits)
    except PreflightError as error:
        # Before the link is cut, which would end the proxy, too.
        blamed = failures.through_proxy(target, link.proxy, error) if link.proxy else error
        link.cut("the handshake failed")
        raise blamed from error.__cause__
    except BaseException:
        link.cut("the handshake failed")
        raise
    return link


def _open_carrier(target: Target, limits: ConnectLimits, via: ParamikoLink | None) -> Carrier:
    if via is not None:
        here, there = ("127.0.0.1", 0), (target.host, target.port)
        timeout_s = limits.connect_timeout_s
        return Carrier(via.open_channel("direct-tcpip", there, here, timeout=timeout_s))
    if target.proxy_command:
        try:
            proxy = ProxyProcess(target.proxy_command)
        except OSError as error:
            raise failures.no_proxy(target, str(error)) from error
        return Carrier(proxy.sock, proxy)
    sock = _dial_target(target, limits.connect_timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each command costs 40 ms more
    return Carrier(sock)


def _dial_target(target: Target, timeout_s: float) -> socket.socket:
    """A connection to the first address that answers, of the family and from the address that
    ssh_config names. Raises ``OSError``.
    """
    family = FAMILIES[target.family]
    found = socket.getaddrinfo(target.host, target.port, family, socket.SOCK_STREAM)
    failure = OSError("no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            if target.bind_address:
                bound = socket.getaddrinfo(target.bind_address, 0, family, kind, protocol)
                sock.bind(bound[0][4])
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _negotiate_link(link: ParamikoLink, limits: ConnectLimits) -> None:
    # The start's own deadline comes first, so that silence is told from a closed connection.
    link.banner_timeout = link.handshake_timeout = 2 * limits.connect_timeout_s
    link.auth_timeout = limits.connect_timeout_s
    link.start_client(timeout=limits.connect_timeout_s)
    if not link.initial_kex_done:
        raise TimeoutError


def _check_host_key(link: ParamikoLink, target: Target, trust: Trust) -> None:
    key = link.get_remote_server_key()
    shown = HostKey(key.get_name(), key.asbytes(), SourceLocation(""))
    revoked = any(known.blob == shown.blob for known in trust.revoked)
    if revoked or not any(known.blob == shown.blob for known in trust.keys):
        raise failures.refused_host_key(target, trust, shown, f"it shows {shown.fingerprint}")


def _authenticate_link(link: ParamikoLink, target: Target, limits: ConnectLimits) -> None:
    tried: list[str] = []
    with contextlib.closing(offered_keys(target)) as keys, _errors_explained(target, limits):
        for name, key in keys:
            tried.append(name)
            try:
                link.auth_publickey(target.user, key)
            except paramiko.AuthenticationException as error:
                if not link.is_active() or isinstance(error, paramiko.BadAuthenticationType):
                    why = str(error)
                    raise failures.refused_authentication(target, tuple(tried), why) from error
            else:
                return
    raise failures.refused_authentication(target, tuple(tried), "no key was accepted")


# What went wrong --------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors_explained(target: Target, limits: ConnectLimits) -> Iterator[None]:
    try:
        yield
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _explain_error(error, target, limits) from error


def _explain_error(error: Exception, target: Target, limits: ConnectLimits) -> PreflightError:
    why = str(error) or type(error).__name__
    match error:
        case paramiko.ChannelException():
            return failures.unreachable_error(target, f"the jump host could not connect: {why}")
        case IncompatiblePeer():
            return failures.no_agreement(target, why, other="asyncssh")
        case TimeoutError():
            return failures.unreachable_error(
                target, f"no answer within {limits.connect_timeout_s:g} s"
            )
        case socket.gaierror():
            return failures.unresolvable_error(target, why)
        case EOFError() | ConnectionResetError() | BrokenPipeError():
            return failures.handshake_cut(target, why)
        case paramiko.SSHException() if "banner" in why.lower():
            return failures.handshake_cut(target, why)
        case OSError():
            return failures.unreachable_error(target, why)
        case _:
            return failures.no_agreement(target, why, other="asyncssh")
