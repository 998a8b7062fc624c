"""Connections that an ``ssh`` in the background holds for a time, each for one command at once.

A connection is found again by what made it: the words for ``ssh``, everything that ``ssh -G`` says
its configuration comes to, and the files of known and revoked host keys, for the node and each jump
host. If any of these changes, a new one is made; the old one ends when nobody has used it for a
while. A user's own ControlMaster is used where one runs, and left alone. Sockets lie in a folder
that only the user can open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.transport.kept_time import kept_seconds
from orchestrator.adapters.transport.multiplex.multiplex_link import MultiplexLink, NoMaster
from orchestrator.adapters.transport.openssh import openssh_errors
from orchestrator.adapters.transport.openssh.jump_hosts import Way, read_way
from orchestrator.adapters.transport.openssh.kept_sockets import (
    ClaimedSocket,
    claim_socket,
    end_master,
    is_answered,
)
from orchestrator.adapters.transport.openssh.ssh_program import run_ssh
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import SshEndpoint
from orchestrator.parsing.ssh_config.session_variables import session_variables

LOGIN_S = 300.0
UNUSED_S = 10  # how long a connection that is not kept waits for the one who made it


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
    way: Way,
    limits: ConnectLimits,
    environ: Mapping[str, str] = os.environ,
) -> tuple[HeldConnection, MultiplexLink]:
    """A connection to the node: the user's own, one that was kept, or a new one.

    Raises ``PreflightError``, and ``UsageError`` for sockets that cannot be kept.
    """
    settings = way.settings
    assigned = settings.values.get("setenv", ())
    environment = list(session_variables(environ, settings.words("sendenv"), assigned).items())
    users = settings.first("controlpath")
    if users not in {"", "none"}:
        with contextlib.suppress(NoMaster):
            return HeldConnection(way.endpoint, environment), await MultiplexLink.connect(
                Path(users)
            )
    keep_s = kept_seconds(environ)
    claimed = claim_socket(way, environ)
    held = HeldConnection(way.endpoint, environment, claimed, ends=keep_s == 0)
    try:
        return held, await _link_over(claimed.path, way, limits, keep_s)
    except BaseException:
        held.release()
        raise


async def _link_over(socket: Path, way: Way, limits: ConnectLimits, keep_s: int) -> MultiplexLink:
    with contextlib.suppress(NoMaster):
        return await MultiplexLink.connect(socket)
    _remove_stale(socket)
    argv = master_command(way, socket, limits, keep_s)
    code, _, words = await run_ssh(argv, limits.connect_timeout_s + limits.silence_s)
    if code != 0:
        if openssh_errors.is_on_the_way(words):
            words = await _words_on_the_way(way, limits) or words
        raise openssh_errors.explain_failure(way.endpoint, way.settings, words, limits)
    try:
        return await MultiplexLink.connect(socket)
    except NoMaster as error:
        raise openssh_errors.explain_failure(
            way.endpoint, way.settings, str(error), limits
        ) from error


def log_in(
    endpoint: SshEndpoint, announce: Callable[[], None], environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether a connection is held now, after ``ssh`` asked in this terminal whatever it asks;
    ``announce`` is called before it does.

    Raises ``UsageError`` and ``PreflightError``.
    """
    limits = ConnectLimits()
    way = asyncio.run(read_way(endpoint, limits.connect_timeout_s))
    claimed = claim_socket(way, environ)
    try:
        if is_answered(claimed.path):
            return True
        _remove_stale(claimed.path)
        announce()
        argv = master_command(way, claimed.path, limits, kept_seconds(environ), asks=True)
        return subprocess.run(argv, check=False, timeout=LOGIN_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        os.close(claimed.lock)


def _remove_stale(socket: Path) -> None:
    """What a master that was killed left: ``ssh`` does not replace it."""
    socket.unlink(missing_ok=True)


async def _words_on_the_way(way: Way, limits: ConnectLimits) -> str:
    """What jump hosts and ProxyCommands say: an ``ssh`` that is to stay silences them."""
    argv = ("ssh", "-T", "-o", "ControlPath=none", *way.words(limits), "true")
    _, _, words = await run_ssh(argv, limits.connect_timeout_s + limits.silence_s)
    return words


def master_command(
    way: Way, socket: Path, limits: ConnectLimits, keep_s: int, *, asks: bool = False
) -> tuple[str, ...]:
    """The ``ssh`` that connects and then holds the connection in the background.

    ``asks``: it may ask the user for what a login needs. One that is not kept is ended by whoever
    has it; it must not end by itself before that one comes, however busy the machine.
    """
    persists = f"ControlPersist={max(keep_s, UNUSED_S)}"
    stays = ("-M", "-N", "-f", "-S", str(socket), "-o", persists)
    return ("ssh", *stays, *way.words(limits, asks=asks))
