"""Connections that an ``ssh`` in the background holds for a time, each for one command at once.

A connection is found again by what made it: the words for ``ssh``, everything that ``ssh -G`` says
its configuration comes to, and the known_hosts files. If any of these changes, a new one is made;
the old one ends when nobody has used it for a while. A user's own ControlMaster is used where one
runs, and left alone. Sockets lie in a folder that only the user can open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.transport.openssh import openssh_errors
from orchestrator.adapters.transport.openssh.kept_sockets import (
    ClaimedSocket,
    claim_socket,
    end_master,
    kept_seconds,
)
from orchestrator.adapters.transport.openssh.multiplex_link import MultiplexLink, NoMaster
from orchestrator.adapters.transport.openssh.ssh_program import run_ssh
from orchestrator.adapters.transport.openssh.ssh_settings import SshSettings, session_environment
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import SshEndpoint


class HeldConnection:
    """A connection that is ours until ``release``; its sessions begin with ``environment``.

    ``claimed`` is None for a master of the user's own. ``ends``: with the release, for all.
    """

    def __init__(
        self,
        endpoint: SshEndpoint,
        environment: Sequence[tuple[str, str]],
        claimed: ClaimedSocket | None = None,
        *,
        ends: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.environment = environment
        self._claimed = claimed
        self._ends = ends

    def release(self) -> None:
        """Let others have it; idempotent."""
        claimed, self._claimed = self._claimed, None
        if claimed is None:
            return
        if self._ends:
            end_master(claimed.path)
        os.close(claimed.lock)


async def hold_connection(
    endpoint: SshEndpoint,
    settings: SshSettings,
    limits: ConnectLimits,
    environ: Mapping[str, str] = os.environ,
) -> tuple[HeldConnection, MultiplexLink]:
    """A connection to the node: the user's own, one that was kept, or a new one.

    Raises ``PreflightError``, and ``UsageError`` for sockets that cannot be kept.
    """
    environment = list(session_environment(settings, environ))
    users = settings.first("controlpath")
    if users not in {"", "none"}:
        with contextlib.suppress(NoMaster):
            return HeldConnection(endpoint, environment), await MultiplexLink.connect(Path(users))
    keep_s = kept_seconds(environ)
    claimed = claim_socket(endpoint, settings, environ)
    held = HeldConnection(endpoint, environment, claimed, ends=keep_s == 0)
    try:
        return held, await _link_over(claimed.path, endpoint, settings, limits, keep_s)
    except BaseException:
        held.release()
        raise


async def _link_over(
    socket: Path, endpoint: SshEndpoint, settings: SshSettings, limits: ConnectLimits, keep_s: int
) -> MultiplexLink:
    with contextlib.suppress(NoMaster):
        return await MultiplexLink.connect(socket)
    _remove_stale(socket)
    argv = master_command(endpoint, socket, limits, keep_s)
    code, _, words = await run_ssh(argv, limits.connect_timeout_s + limits.silence_s)
    if code != 0:
        if openssh_errors.is_on_the_way(words):
            words = await _words_on_the_way(endpoint, limits) or words
        raise openssh_errors.explain_failure(endpoint, settings, words, limits)
    try:
        return await MultiplexLink.connect(socket)
    except NoMaster as error:
        raise openssh_errors.explain_failure(endpoint, settings, str(error), limits) from error


def _remove_stale(socket: Path) -> None:
    """What a master that was killed left: ``ssh`` does not replace it."""
    socket.unlink(missing_ok=True)


async def _words_on_the_way(endpoint: SshEndpoint, limits: ConnectLimits) -> str:
    """What jump hosts and ProxyCommands say: an ``ssh`` that is to stay silences them."""
    options = connection_options(limits)
    argv = ("ssh", "-T", "-o", "ControlPath=none", *options, *endpoint.argv, "true")
    _, _, words = await run_ssh(argv, limits.connect_timeout_s + limits.silence_s)
    return words


def master_command(
    endpoint: SshEndpoint, socket: Path, limits: ConnectLimits, keep_s: int, *, asks: bool = False
) -> tuple[str, ...]:
    """The ``ssh`` that connects and then holds the connection in the background.

    ``asks``: it may ask the user for what a login needs.
    """
    stays = ("-o", f"ControlPersist={max(keep_s, 1)}", *connection_options(limits, asks=asks))
    return ("ssh", "-M", "-N", "-f", "-S", str(socket), *stays, *endpoint.argv)


def connection_options(limits: ConnectLimits, *, asks: bool = False) -> tuple[str, ...]:
    """How ``ssh`` connects for us, beside what its configuration says."""
    options = {
        "ConnectTimeout": max(1, round(limits.connect_timeout_s)),
        "ServerAliveInterval": max(1, round(limits.keepalive_interval_s)),
        "ServerAliveCountMax": limits.keepalive_count,
        "BatchMode": "no" if asks else "yes",
        "StrictHostKeyChecking": "ask" if asks else "yes",
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "UpdateHostKeys": "no",
        "LogLevel": "INFO",
    }
    return tuple(word for name, value in options.items() for word in ("-o", f"{name}={value}"))
