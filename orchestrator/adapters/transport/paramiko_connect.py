"""Connecting with paramiko: jump hosts, host keys, keys, and what went wrong. Everything blocks."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST
from paramiko.pkey import PublicBlob
from paramiko.ssh_exception import IncompatiblePeer

from orchestrator.adapters.transport import failures
from orchestrator.adapters.transport.known_hosts import HostKey, Trust
from orchestrator.adapters.transport.target import Target
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import Place, PreflightError

logging.getLogger("paramiko").addHandler(logging.NullHandler())

PROXY_END_TIMEOUT_S = 2.0
_RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


def _handle_channel_request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    position = message.packet.tell()
    if message.get_text() == "exit-signal":
        message.get_boolean()
        link = channel.get_transport()
        assert isinstance(link, Link)
        link.exit_signals[channel.get_id()] = message.get_text()
        channel.status_event.set()
    message.packet.seek(position)
    channel._handle_request(message)  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a connection runs over, and the ProxyCommand's process behind it, if there is one."""

    sock: socket.socket | paramiko.Channel
    process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self.sock.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait(PROXY_END_TIMEOUT_S)


class Link(paramiko.Transport):
    """A connection that also hears exit signals; paramiko drops them: killed looks like lost.

    ``exit_signals`` holds signal names without ``SIG`` by channel number.
    """

    _channel_handler_table: ClassVar = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001
        MSG_CHANNEL_REQUEST: _handle_channel_request,
    }

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier.sock)
        self.exit_signals: dict[int, str] = {}
        self.killing = threading.Lock()  # one session at a time is for killing
        self._carrier = carrier
        self._why_cut = ""

    def cut(self, reason: str) -> None:
        """Drop the connection without waiting for anybody."""
        self._why_cut = self._why_cut or reason
        self.active = False
        self.packetizer.close()
        self._carrier.close()

    def why_dead(self) -> str:
        """What ended the connection."""
        return self._why_cut or str(self.saved_exception or "") or "the SSH connection is lost"


def connect(target: Target, limits: ConnectLimits) -> list[Link]:
    """The chain of connections that ends at ``target``. Raises :class:`PreflightError`."""
    chain: list[Link] = []
    try:
        for hop in _hops(target):
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


def _hops(target: Target) -> list[Target]:
    hops = [target]
    while hops[0].via is not None:
        hops.insert(0, hops[0].via)
    return hops


def _connect_hop(target: Target, limits: ConnectLimits, via: Link | None) -> Link:
    trust = target.trust()
    with _explained(target, limits):
        link = Link(_carrier(target, limits, via))
    try:
        with _explained(target, limits):
            _negotiate(link, trust, limits)
        _check_host_key(link, target, trust)
        _authenticate(link, target, limits)
    except BaseException:
        link.cut("the handshake failed")
        raise
    return link


def _carrier(target: Target, limits: ConnectLimits, via: Link | None) -> Carrier:
    address = (target.host, target.port)
    if via is not None:
        here = ("127.0.0.1", 0)
        timeout_s = limits.connect_timeout_s
        return Carrier(via.open_channel("direct-tcpip", address, here, timeout=timeout_s))
    if target.proxy_command:
        return _proxy(target.proxy_command)
    sock = socket.create_connection(address, limits.connect_timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each command costs 40 ms more
    return Carrier(sock)


def _proxy(command: tuple[str, ...]) -> Carrier:
    # paramiko's own ProxyCommand neither waits for its child nor closes its pipes.
    ours, theirs = socket.socketpair()
    with theirs:
        end = theirs.fileno()
        process = subprocess.Popen(command, stdin=end, stdout=end, start_new_session=True)
    return Carrier(ours, process)


def _negotiate(link: Link, trust: Trust, limits: ConnectLimits) -> None:
    options = link.get_security_options()
    known = {kind for key in trust.keys for kind in _algorithms(key.kind)}
    # Known types first: a server with several keys then shows the one that can be checked.
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in known)
    # The start's own deadline comes first, so that silence is told from a closed connection.
    link.banner_timeout = link.handshake_timeout = 2 * limits.connect_timeout_s
    link.auth_timeout = limits.connect_timeout_s
    link.start_client(timeout=limits.connect_timeout_s)
    if not link.initial_kex_done:
        raise TimeoutError


def _algorithms(kind: str) -> tuple[str, ...]:
    return _RSA_ALGORITHMS if kind == "ssh-rsa" else (kind,)


def _check_host_key(link: Link, target: Target, trust: Trust) -> None:
    key = link.get_remote_server_key()
    shown = HostKey(key.get_name(), key.asbytes(), Place(""))
    revoked = any(known.blob == shown.blob for known in trust.revoked)
    if revoked or not any(known.blob == shown.blob for known in trust.keys):
        raise failures.refused_host_key(target, trust, shown, f"it shows {shown.fingerprint}")


def _authenticate(link: Link, target: Target, limits: ConnectLimits) -> None:
    tried: list[str] = []
    with contextlib.closing(_keys(target)) as keys, _explained(target, limits):
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


def _keys(target: Target) -> Generator[tuple[str, paramiko.PKey]]:
    """The agent's keys (as far as they may be offered), then the files; encrypted ones not."""
    files = [(path, key) for path in target.identity_files if (key := _private_key(path))]
    public = {key.asbytes() for _, key in files} | set(_public_halves(target))
    with _agent(target) as held:
        named = [key for key in held if key.asbytes() in public]
        others = () if target.identities_only else [key for key in held if key not in named]
        for agent_key in (*named, *others):
            yield agent_key.comment or agent_key.get_name(), agent_key
        in_agent = {key.asbytes() for key in held}
        yield from ((path, key) for path, key in files if key.asbytes() not in in_agent)


@contextlib.contextmanager
def _agent(target: Target) -> Iterator[Sequence[paramiko.AgentKey]]:
    """The agent's keys, usable inside the block."""
    # paramiko finds the agent by the environment only.
    if not target.agent or target.agent != os.environ.get("SSH_AUTH_SOCK"):
        yield ()
        return
    with contextlib.closing(paramiko.Agent()) as agent:
        yield agent.get_keys()


def _private_key(path: str) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(path)
    except (OSError, ValueError, TypeError, paramiko.SSHException):
        return None  # missing, unreadable, or encrypted (the agent may hold it)


def _public_halves(target: Target) -> Iterator[bytes]:
    for path in target.identity_files:
        with contextlib.suppress(OSError, ValueError, IndexError, paramiko.SSHException):
            yield PublicBlob.from_file(str(Path(f"{path}.pub"))).key_blob


# What went wrong --------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(target: Target, limits: ConnectLimits) -> Iterator[None]:
    try:
        yield
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _explain(error, target, limits) from error


def _explain(error: Exception, target: Target, limits: ConnectLimits) -> PreflightError:
    why = str(error) or type(error).__name__
    match error:
        case paramiko.ChannelException():
            return failures.unreachable(target, f"the jump host could not connect: {why}")
        case IncompatiblePeer():
            return failures.no_agreement(target, why, other="asyncssh")
        case TimeoutError():
            return failures.unreachable(target, f"no answer within {limits.connect_timeout_s:g} s")
        case socket.gaierror():
            return failures.unresolvable(target, why)
        case EOFError() | ConnectionResetError() | BrokenPipeError():
            return failures.handshake_cut(target, why)
        case paramiko.SSHException() if "banner" in why.lower():
            return failures.handshake_cut(target, why)
        case OSError():
            return failures.unreachable(target, why)
        case _:
            return failures.no_agreement(target, why, other="asyncssh")
