"""Where the broker of this user listens, and how it begins.

Whoever starts it makes the listening socket and hands it over: a command can connect at once, and a
broker that dies before it listens is noticed like any other that dies.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import orchestrator
from orchestrator.adapters.background import fork_away
from orchestrator.adapters.cache.json_cache import code_stamp
from orchestrator.adapters.private_sockets import (
    connect_privately,
    listen_privately,
    lock_exclusively,
    namespace_words,
    sockets_folder,
)
from orchestrator.adapters.transport.kept_time import kept_seconds
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.model.inventory import NodeSpec, TransportKind

PREFIX = "broker-"
CONNECT_S = 2.0
_started: list[Path] = []
_CODE = tuple(
    f"adapters/transport{folder}"
    for folder in ("", "/broker", "/asyncssh", "/multiplex", "/ssh", "/ssh_config")
)


def broker_path(environ: Mapping[str, str]) -> Path:
    """The socket of the broker for this user, in this world, of this version of the code.

    Raises ``UsageError`` and ``OSError`` where there is no place for it.
    """
    folder = sockets_folder(environ)
    return folder / f"{PREFIX}{_world_and_code()}"


@functools.cache
def _world_and_code() -> str:
    versions = [sys.version, sys.prefix, orchestrator.__file__, code_stamp(_CODE)]
    made_of = [namespace_words(), _bounds(), os.geteuid(), versions]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def _bounds() -> list[str]:
    """What a broker has of the command that starts it and cannot leave: a service that ends takes
    its control group along, and a limit on time, memory or files is not for others' connections.
    """
    found = []
    for name in ("cgroup", "limits"):
        with contextlib.suppress(OSError):
            found.append(hashlib.sha256(Path("/proc/self", name).read_bytes()).hexdigest())
    return found


def reach_broker(environ: Mapping[str, str]) -> socket.socket | None:
    """A connection to the broker; None: there is none, or none that is ours alone."""
    with contextlib.suppress(OSError, UsageError):
        return connect_privately(broker_path(environ), CONNECT_S)
    return None


def expect_connections(nodes: Iterable[NodeSpec], environ: Mapping[str, str] = os.environ) -> None:
    """Have a broker if ``nodes`` will need one and none runs: it imports what it needs while this
    process imports its own. To be called while this process has one thread and no event loop.

    Raises ``UsageError`` for a time to keep connections that is none.
    """
    if not kept_seconds(environ) or all(n.transport is not TransportKind.ASYNCSSH for n in nodes):
        return
    if threading.active_count() > 1 or sys.platform != "linux":
        return  # what holds locks there would not go on here; macOS has no fork to rely on
    with contextlib.suppress(OSError, UsageError):
        path = broker_path(environ)
        try:
            connect_privately(path, CONNECT_S).close()
        except (FileNotFoundError, ConnectionRefusedError):
            _fork_broker(path)
            _started.append(path)


def has_started_one() -> bool:
    """Whether this process has: it may take a while until it answers."""
    return bool(_started)


def _fork_broker(path: Path) -> None:
    """Raises ``OSError`` where none can be had."""
    lock = lock_exclusively(path.with_name(f"{path.name}.lock"))
    if lock is None:
        return  # another command starts one
    try:
        with listen_privately(path) as listener:
            alive = fork_away(path.with_name("broker.log"), (lock, listener.fileno()))
            if alive is not None:
                os.close(alive)
                return
            _serve_and_exit(path, listener)
    finally:
        os.close(lock)


def _serve_and_exit(path: Path, listener: socket.socket) -> NoReturn:
    """What the new process does; nothing of what the command was about to do."""
    code = ExitCode.INTERNAL
    try:
        from orchestrator.adapters.transport.broker.broker_process import serve

        serve(path, listener)
        code = ExitCode.DONE
    finally:
        if code is not ExitCode.DONE:
            traceback.print_exc()
        os._exit(code)
