"""Beside each command that is a fork: the process that is its parent, for the client's sake.

It gives signals to the command and its true end to the client, and does not let it outlive the
client. It holds none of the client's descriptors while the command runs.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from orchestrator.adapters.private_sockets import require_own_peer
from orchestrator.adapters.warm.likeness import describe_process
from orchestrator.adapters.warm.messages import (
    ENDED,
    GO,
    MAX_BYTES,
    MAX_DESCRIPTORS,
    READY,
    REFUSED,
    STARTED,
    STOPPED,
    VERSION,
)

# How a keeper ends: its process runs code that is no longer on the disk, and is to end with it.
STALE = 3
_IN_VAIN = 1
ASK_S = 1.0


class Command(NamedTuple):
    """What a fork becomes: the signals to ignore and to block (as masks), the words, and the
    environment; the descriptors that it has, by the numbers that they are to have, and that of the
    working directory.
    """

    ignored: int
    blocked: int
    argv: list[bytes]
    environ: dict[bytes, bytes]
    descriptors: dict[int, int]
    folder: int


def keep(connection: socket.socket, likeness: bytes, is_current: Callable[[], bool]) -> Command:
    """Returns in the command's own process, with the command; the keeper's ends in here."""
    with contextlib.suppress(OSError, ValueError):
        command = _take(connection, likeness, is_current)
        connection.send(READY)
        if connection.recv(MAX_BYTES) == GO:
            return _fork(connection, command)
    with contextlib.suppress(OSError):  # such as no memory for a fork
        connection.send(REFUSED)
    return _refuse()


def _refuse() -> NoReturn:
    """The client does it itself, when it sees that nobody is there."""
    os._exit(_IN_VAIN)


def _take(connection: socket.socket, likeness: bytes, is_current: Callable[[], bool]) -> Command:
    connection.settimeout(ASK_S)
    require_own_peer(connection)
    theirs, command = _unpack(*_receive(connection))
    if not is_current():
        os._exit(STALE)
    # This process is one of the warm one's now: who was moved into another group, say, is another.
    if theirs != likeness or theirs != describe_process():
        _refuse()
    return command


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A packet and the descriptors that came with it. Raises ``ValueError`` for part of one."""
    numbers = array.array("i")
    size = socket.CMSG_SPACE(numbers.itemsize * MAX_DESCRIPTORS)
    packet, ancillary, flags, _ = connection.recvmsg(MAX_BYTES, size)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ValueError("part of a request")
    return packet, list(numbers)


def _unpack(packet: bytes, received: list[int]) -> tuple[bytes, Command]:
    """What the client is, and the command. Raises ``ValueError`` for what is not a request."""
    version, likeness, masks, numbers, count, *words = packet.split(b"\0")
    ignored, blocked = (int(mask, 16) for mask in masks.split())
    *descriptors, folder = received
    placed = dict(zip(map(int, numbers.split()), descriptors, strict=True))
    if version != VERSION or int(count) < 1 or len(words) < int(count):
        raise ValueError("not a request of this version")
    pairs = (word.partition(b"=") for word in words[int(count) :])
    environ = {name: value for name, _, value in pairs if name}
    return likeness, Command(ignored, blocked, words[: int(count)], environ, placed, folder)


def _fork(connection: socket.socket, command: Command) -> Command:
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    process = os.fork()
    if process == 0:
        signal.set_wakeup_fd(-1)
        connection.close()
        os.close(woken)
        os.close(wakes)
        return command
    for descriptor in (*command.descriptors.values(), command.folder):
        os.close(descriptor)
    return _watch(connection, process, woken)


def _watch(connection: socket.socket, process: int, woken: int) -> NoReturn:
    """Between the client and its command, until both have ended."""
    connection.settimeout(None)
    _say(connection, STARTED, process)
    poll = select.poll()
    for each in (connection.fileno(), woken):
        poll.register(each, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, MAX_BYTES)
            status = _changes(connection, process)
            if status is not None:
                _say(connection, ENDED, status)
                with contextlib.suppress(OSError):
                    # The client closes when it has read; before, a signal of its may still come.
                    while connection.recv(MAX_BYTES):
                        pass
                os._exit(0)
        if connection.fileno() in ready:
            _pass_on(connection, process)


def _changes(connection: socket.socket, process: int) -> int | None:
    """How the command ended, if it did; the client hears that it stopped."""
    while True:
        pid, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if not os.WIFSTOPPED(status):
            return status
        _say(connection, STOPPED, os.WSTOPSIG(status))


def _pass_on(connection: socket.socket, process: int) -> None:
    """One signal to the command; a client that is gone was killed, and the command with it."""
    try:
        packet = connection.recv(MAX_BYTES)
    except OSError:
        packet = b""
    # It was not waited for yet: the number is still its own.
    for number in packet or (signal.SIGKILL,):
        os.kill(process, number)
    if not packet:
        os.waitpid(process, 0)
        os._exit(0)


def _say(connection: socket.socket, kind: bytes, number: int) -> None:
    with contextlib.suppress(OSError):  # the client is gone: that is seen by reading
        connection.send(kind + b"%d" % number)
