"""The sockets of connections that an ``ssh`` in the background holds, and who uses which."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.private_sockets import lock_exclusively, sockets_folder, take_lock
from orchestrator.adapters.transport.multiplex.multiplex_messages import Mux, mux_hello, mux_request
from orchestrator.adapters.transport.openssh import openssh_errors
from orchestrator.adapters.transport.openssh.jump_hosts import Way
from orchestrator.adapters.transport.openssh.ssh_settings import SshSettings
from orchestrator.core.model.inventory import SshEndpoint

MOST_AT_ONCE = 64  # connections to one node, of commands that run at the same time
MAX_NOTE_BYTES = 4096
ANSWER_S = 1.0


class KeptConnection(NamedTuple):
    """One that is held now: the words for ``ssh`` that lead there, since when (wall clock, in
    seconds), and whether a command uses it.
    """

    path: Path
    words: str
    since: float
    in_use: bool


class ClaimedSocket(NamedTuple):
    """A socket's path that no other command uses while ``lock`` is open."""

    path: Path
    lock: int


def claim_socket(way: Way, environ: Mapping[str, str]) -> ClaimedSocket:
    """The first one for this node that is free. Raises ``PreflightError`` when all are in use, and
    where no file can be made.
    """
    folder, name = sockets_folder(environ), _digest(way)
    note = shlex.join(way.endpoint.argv).encode(errors="replace")
    for number in range(MOST_AT_ONCE):
        path = folder / f"{name}-{number}"
        try:
            lock = lock_exclusively(_lock_path(path))
        except OSError as error:
            raise openssh_errors.no_socket(way.endpoint, folder, error) from error
        if lock is not None:
            _write_note(lock, note)
            return ClaimedSocket(path, lock)
    raise openssh_errors.too_many_at_once(way.endpoint, MOST_AT_ONCE)


def _write_note(lock: int, note: bytes) -> None:
    """For ``connections list``; a full disk keeps nobody from connecting."""
    if os.pread(lock, len(note) + 1, 0) == note:
        return
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.write(lock, note)


def kept_connections(environ: Mapping[str, str]) -> list[KeptConnection]:
    """Those that answer, oldest first. Raises ``UsageError`` if others could open the folder."""
    found = [path for path in sockets_folder(environ).iterdir() if _is_ours(path)]
    kept = (_look_at(path) for path in found if is_answered(path))
    return sorted(filter(None, kept), key=lambda each: each.since)


def _is_ours(path: Path) -> bool:
    """A socket as ``claim_socket`` names it: others of this user lie beside it."""
    return re.fullmatch(r"[0-9a-f]{12}-\d+", path.name) is not None and path.is_socket()


def is_answered(path: Path) -> bool:
    """Whether an ``ssh`` holds a connection behind the socket."""
    return _ask_master(path)


def end_master(path: Path) -> bool:
    """Ask the ``ssh`` behind a socket to end, and wait for that; False: there is none."""
    return _ask_master(path, mux_request(Mux.TERMINATE, 1))


def _ask_master(path: Path, request: bytes = b"") -> bool:
    """Whether somebody answers; with a request, until the connection ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(str(path))
            connection.sendall(mux_hello() + request)
            while connection.recv(4096) and request:
                pass
        except OSError:
            return False
    return True


def _look_at(path: Path) -> KeptConnection | None:
    """None: it ended just now."""
    try:
        with _lock_path(path).open("rb") as note:
            in_use = not take_lock(note.fileno())
            words = note.read(MAX_NOTE_BYTES).decode(errors="replace")
        since = path.lstat().st_mtime
    except FileNotFoundError:
        return None
    return KeptConnection(path=path, words=words, since=since, in_use=in_use)


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _digest(way: Way) -> str:
    """Of all that decides where a connection goes, and whom it trusts on the way."""
    made_of = [_stations_part(station.endpoint, station.settings) for station in way.stations()]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def _stations_part(endpoint: SshEndpoint, settings: SshSettings) -> list[object]:
    contents = [hashlib.sha256(_content(file)).hexdigest() for file in _key_files(settings)]
    return [list(endpoint.argv), settings.text.decode(errors="replace"), contents]


def _key_files(settings: SshSettings) -> list[Path]:
    """The files of known and revoked host keys. ``ssh -G`` does not say whether a blank divides two
    names or belongs to one: both are looked at.
    """
    known = ("userknownhostsfile", "globalknownhostsfile")
    whole = [v for name in (*known, "revokedhostkeys") for v in settings.values.get(name, ())]
    parts = [word for name in known for word in settings.words(name)]
    return [Path(name) for name in dict.fromkeys([*whole, *parts])]


def _content(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: the home of nobody
        return b""
