"""Where the broker of this user listens, and how it is started.

Whoever starts it makes the listening socket and hands it over: a command can connect at once, and a
broker that dies before it listens is noticed like any other that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orchestrator
from orchestrator.adapters.cache.json_cache import code_stamp
from orchestrator.adapters.private_sockets import (
    connect_privately,
    listen_privately,
    lock_exclusively,
    namespace_words,
    sockets_folder,
)
from orchestrator.adapters.transport.kept_time import kept_seconds
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import NodeSpec, TransportKind

Descriptor = int | BinaryIO | socket.socket
PREFIX = "broker-"
LOCK, LISTENER = 3, 4  # descriptors that it inherits
CONNECT_S = 2.0
ATTEMPTS = 20
PAUSE_S = 0.01
MODULE = "orchestrator.adapters.transport.broker.serve"
_CODE = tuple(
    f"adapters/transport{folder}"
    for folder in ("", "/broker", "/asyncssh", "/multiplex", "/ssh", "/ssh_config")
)
# Whatever else the first command's environment holds, the broker has no need of it.
_VARIABLES = frozenset(
    "PATH HOME LANG TMPDIR ORCHESTRATE_HOME XDG_RUNTIME_DIR LOCALDOMAIN RES_OPTIONS".split()
)
_FAMILIES = ("PYTHON", "LC_", "LD_", "DYLD_")


def broker_path(environ: Mapping[str, str]) -> Path:
    """The socket of the broker for this user, in this world, of this version of the code.

    Raises ``UsageError`` and ``OSError`` where there is no place for it.
    """
    folder = sockets_folder(environ)
    return folder / f"{PREFIX}{_world_and_code()}"


@functools.cache
def _world_and_code() -> str:
    versions = [sys.version, sys.prefix, orchestrator.__file__, code_stamp(_CODE)]
    made_of = [namespace_words(), os.geteuid(), versions]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


class Reached(NamedTuple):
    """A connection to the broker, and whether this process has just started it."""

    connection: socket.socket
    started: bool


def reach_broker(environ: Mapping[str, str]) -> Reached | None:
    """The broker, which is started if there is none; None: none can be had, for whatever reason."""
    try:
        path = broker_path(environ)
        for _ in range(ATTEMPTS):
            try:
                return Reached(connect_privately(path, CONNECT_S), started=False)
            except (FileNotFoundError, ConnectionRefusedError):
                if _start(path, environ):
                    return Reached(connect_privately(path, CONNECT_S), started=True)
            time.sleep(PAUSE_S)  # another command starts it, or the last one is about to end
    except (OSError, UsageError):
        pass
    return None


def expect_connections(nodes: Iterable[NodeSpec], environ: Mapping[str, str] = os.environ) -> None:
    """Have a broker import what it needs while this process does so, too, if ``nodes`` will need it
    and none runs. Raises ``UsageError`` for a time to keep connections that is none.
    """
    if not kept_seconds(environ) or all(n.transport is not TransportKind.ASYNCSSH for n in nodes):
        return
    with contextlib.suppress(OSError, UsageError):
        path = broker_path(environ)
        if not path.exists():
            _start(path, environ)


def _start(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether this process has started it; else another one is about to. Raises ``OSError``."""
    lock = lock_exclusively(path.with_name(f"{path.name}.lock"))
    if lock is None:
        return False
    try:
        with listen_privately(path) as listener, _open_log(path.parent) as log:
            _spawn([str(path)], {0: None, 1: None, 2: log, LOCK: lock, LISTENER: listener}, environ)
    finally:
        os.close(lock)
    return True


def _spawn(
    words: list[str],
    descriptors: Mapping[int, int | BinaryIO | socket.socket | None],
    environ: Mapping[str, str],
) -> None:
    """The broker in a session of its own. It is no child that anything waits for: init has it when
    this process has ended.
    """
    with contextlib.ExitStack() as stack:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
        for number, source in descriptors.items():
            if source is None:
                actions.append((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0))
                continue
            # Above all that is put in its place below, so that nothing is overwritten first.
            above = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, LISTENER + 1)
            stack.callback(os.close, above)
            actions.append((os.POSIX_SPAWN_DUP2, above, number))
        argv = [sys.executable, "-P", "-m", MODULE, *words]
        os.posix_spawn(
            sys.executable, argv, _environment(environ), file_actions=actions, setsid=True
        )


def _open_log(folder: Path) -> BinaryIO:
    """What it says when it fails, of the last one only."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(folder / "broker.log", flags, 0o600), "wb")
    except OSError:
        return Path(os.devnull).open("wb")


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in environ.items() if k in _VARIABLES or k.startswith(_FAMILIES)}
    root = str(Path(orchestrator.__file__).resolve().parents[1])
    modules = os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH", ""))))
    return {**kept, "PYTHONPATH": modules}
