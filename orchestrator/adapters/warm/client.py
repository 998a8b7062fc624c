"""The command as its user started it: a process that another one, which has imported everything
already, does the work for.

It is on the way of every command, so it imports next to nothing: ``_socket`` and ``_signal`` are
what ``socket`` and ``signal`` are made of, and take a tenth of their time.
"""

from __future__ import annotations

import _socket
import os
import sys
from binascii import crc32

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
    pack_descriptors,
    pack_request,
)

TYPE_CHECKING = False  # as `typing` has it, which would be most of what is imported here
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping
else:
    import _signal

VARIABLE = b"ORCHESTRATE_WARM"
ON_BY_DEFAULT = True
# Those whose time is mostly Python's start and that need no terminal of their own: of all, only
# `connections open` has a question asked. What is typed now and then, or lasts, gains nothing.
VERBS = frozenset(b"run plan exec sync probe ps show compare cluster workload".split())
# One that does not answer by then is too busy: the command is quicker by itself.
ANSWER_S = 0.25
_WAIT_S = 1e6
# What a user, a shell or a batch system sends; each ends or changes the command and not the client.
_PASSED_ON = (
    _signal.SIGHUP,
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGUSR1,
    _signal.SIGUSR2,
    _signal.SIGALRM,
    _signal.SIGTERM,
    _signal.SIGCONT,
    _signal.SIGTSTP,
    _signal.SIGXCPU,
    _signal.SIGVTALRM,
    _signal.SIGPROF,
    _signal.SIGWINCH,
    _signal.SIGIO,
    _signal.SIGPWR,
)


class Nobody(Exception):
    """Nothing was begun elsewhere. ``likeness``: what a process that could do it would be like;
    None where one must not, or runs and cannot.
    """

    def __init__(self, likeness: bytes | None = None) -> None:
        self.likeness = likeness


def run_elsewhere(words: list[str]) -> None:
    """Have the command run by a process that is warm, and end as it ends: does not return then.

    Raises :class:`Nobody` when the command is to run here. SIGINT is blocked from here on.
    """
    if not is_on(os.environb) or not _may_be_warm([os.fsencode(word) for word in words]):
        raise Nobody
    try:
        signals = signal_masks()
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
        descriptors = _inherited_descriptors()
        if not _may_read_terminal():
            raise Nobody
        likeness = describe_process()
    except OSError as error:
        raise Nobody from error
    argv = [os.fsencode(word) for word in sys.argv]
    packet = pack_request(likeness, signals, descriptors, argv, dict(os.environb))
    connection = _connect(likeness)
    try:
        _ask(connection, packet, descriptors)
    except OSError as error:
        connection.close()
        raise Nobody(likeness) from error
    _accompany(connection, *signals)


def is_on(environ: Mapping[bytes, bytes]) -> bool:
    """Whether processes stay warm: by Linux, and by the variable of that name."""
    said = environ.get(VARIABLE, b"").strip().lower()
    wanted = said in {b"1", b"on", b"yes", b"true"} or (ON_BY_DEFAULT and not said)
    return wanted and sys.platform == "linux"


def folder(environ: Mapping[bytes, bytes]) -> bytes | None:
    """Where the sockets are; None without a home. It need not exist."""
    runtime = environ.get(b"XDG_RUNTIME_DIR", b"")
    if runtime and os.path.isdir(runtime):
        return runtime + b"/orchestrate/warm"
    home = environ.get(b"ORCHESTRATE_HOME", b"")
    if not home and environ.get(b"HOME"):
        home = environ[b"HOME"] + b"/.orchestrate"
    return home + b"/warm" if home else None


def socket_name(likeness: bytes) -> str:
    """One for each likeness: another login, container, limit or interpreter has its own process.
    Two that are alike by chance are told apart by what the keeper compares.
    """
    return f"{crc32(likeness):08x}"


def signal_masks() -> tuple[int, int]:
    """The signals that this process ignores, and those that it blocks. Raises ``OSError``."""
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, MAX_BYTES).split(b"\n")
    finally:
        os.close(fd)
    masks = {name: value for name, _, value in (line.partition(b":") for line in lines)}
    return int(masks[b"SigIgn"], 16), int(masks[b"SigBlk"], 16)


def _may_be_warm(words: list[bytes]) -> bool:
    """By the verb. Options before any verb ask for help, or belong to `run`."""
    return bool(words) and (words[0] in VERBS or words[0].startswith(b"-"))


def _inherited_descriptors() -> list[int]:
    """The standard ones first, then what else was handed down: words may name it as /dev/fd/63.

    Raises :class:`Nobody` where a standard one is closed, and for too many.
    """
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    inherited = sorted(number for number in found if _is_inheritable(number))
    if inherited[:3] != [0, 1, 2] or len(inherited) >= MAX_DESCRIPTORS:
        raise Nobody
    return inherited


def _is_inheritable(number: int) -> bool:
    """What was open when this program began; not what Python itself opened, and may have closed."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def _may_read_terminal() -> bool:
    """Whether stdin is no terminal, or this one's in the foreground: a fork in another session is
    not stopped when it reads from it.
    """
    return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()


def _connect(likeness: bytes) -> _socket.socket:
    where = folder(os.environb)
    if where is None:
        raise Nobody
    try:
        at = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Nobody(likeness) from error
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(ANSWER_S)
        # By way of the folder, however long its name is.
        connection.connect(f"/proc/self/fd/{at}/{socket_name(likeness)}")
        if not _is_own(connection):
            raise Nobody
    except BlockingIOError as error:  # it is there, and as many wait already as can
        raise Nobody from error
    except OSError as error:
        raise Nobody(likeness) from error
    finally:
        os.close(at)
    return connection


def _is_own(connection: _socket.socket) -> bool:
    """Whether this user is at the other end."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(peer[4:8], sys.byteorder) == os.geteuid()


def _ask(connection: _socket.socket, packet: bytes, descriptors: list[int]) -> None:
    """Until the other end is ready. Raises ``OSError``."""
    at = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack_descriptors([*descriptors, at]))
    try:
        connection.sendmsg([packet], [rights])
    finally:
        os.close(at)
    if connection.recv(MAX_BYTES) != READY:
        raise ConnectionAbortedError


def _accompany(connection: _socket.socket, ignored: int, blocked: int) -> None:
    """Let it begin; pass signals on, and end as the command does."""
    # One that came before its number can be written would be lost: it waits until all is set.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _PASSED_ON)
    for passed_on in _PASSED_ON:
        if not ignored & 1 << (passed_on - 1):
            _signal.signal(passed_on, _nothing)
    connection.settimeout(_WAIT_S)
    # The kernel's part of a signal writes its number there: nothing of ours has to run for it.
    _signal.set_wakeup_fd(connection.fileno(), warn_on_full_buffer=False)
    connection.send(GO)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, _members(blocked))
    process = -1
    while True:
        try:
            packet = connection.recv(MAX_BYTES)
        except TimeoutError:
            continue
        except OSError:
            packet = b""
        kind, number = packet[:1], int(packet[1:] or b"0")
        if kind == STARTED:
            process = _handle(number)
        elif kind == STOPPED:
            _stop(number)
            connection.send(bytes((_signal.SIGCONT,)))
        elif kind == REFUSED:
            _take_back(connection)
            raise Nobody
        else:
            _signal.set_wakeup_fd(-1)
            _end(number if kind == ENDED else _end_lost(process))


def _take_back(connection: _socket.socket) -> None:
    """Signals are this process's own again."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
    _signal.set_wakeup_fd(-1)
    connection.close()
    for number in _PASSED_ON:
        if _signal.getsignal(number) is _nothing:
            default = number == _signal.SIGINT
            _signal.signal(number, _signal.default_int_handler if default else _signal.SIG_DFL)


def _stop(number: int) -> None:
    """Stop as the command did. The kernel stops nobody by Ctrl-Z whom no shell could continue."""
    if number in {_signal.SIGSTOP, _signal.SIGTTIN, _signal.SIGTTOU}:
        os.kill(os.getpid(), _signal.SIGSTOP)
        return
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    _signal.signal(number, _nothing)


def _nothing(number: int, frame: object) -> None:
    """The signal was passed on."""


def _members(mask: int) -> list[int]:
    return [number for number in range(1, 65) if mask & 1 << (number - 1)]


def _handle(process: int) -> int:
    try:
        return os.pidfd_open(process)
    except OSError:  # it has ended
        return -1


def _end_lost(process: int) -> int:
    """The command's keeper was killed, and nothing watches it any more: so is the command."""
    if process >= 0:
        try:  # noqa: SIM105 - contextlib would have to be imported
            _signal.pidfd_send_signal(process, _signal.SIGKILL)
        except OSError:
            pass
    return int(_signal.SIGKILL)


def _end(status: int) -> None:
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    import resource

    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has written its own
    if number not in {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)
    os._exit(128 + number)
