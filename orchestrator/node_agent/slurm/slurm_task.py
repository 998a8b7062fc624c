"""What Slurm starts on each node of a job: it becomes the launcher that this node planned.

It travels as text on srun's command line, because no path need be the same on two nodes, and asks
the process that the node's supervisor started (``slurm_offer.py``) for its orders. They meet at an
abstract socket, which a private /tmp does not hide, and which the kernel vouches for: both ends
look at the other's user. With the orders come the log files, as descriptors. The connection is also
a tether: when the other end goes, so does the launcher; how the launcher ended travels back.

``python3 -I -S -c TEXT NAME``: standard library only, and nothing else of ours.
"""

from __future__ import annotations

import array
import ctypes
import hashlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
CONNECT_S = 60.0  # the job may begin before the last node's supervisor has
POLL_S = 0.05
FAREWELL_S = 5.0
SAME_SIGNAL_S = 2.0  # between a process of a step that Slurm signals, and another of it
MAX_LINE_BYTES = 16 * 1024 * 1024
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TOLD_BY_SLURM = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
# Who signals rank shims and ranks alike; as rank_shim.py has it, which this text cannot import.
SIGNALS_ALL = "ORCHESTRATE_SIGNALS_ALL"
NO_ORDERS = 3
# What Slurm decides for its tasks, whatever was planned.
SLURMS_OWN = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")


def address_of(name: str, node: str) -> bytes:
    """Where the two meet on Slurm's node ``node``."""
    place = hashlib.sha256(f"{name}.{node}".encode()).hexdigest()[:32]
    return f"\0orchestrate-slurm-{place}".encode()


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel tells."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", told)[1])


class Wake:
    """Signals as something to select on."""

    def __init__(self, *numbers: int) -> None:
        self.read, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(self.read, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        return self.read

    def taken(self) -> bytes:
        """The numbers of the signals that came."""
        try:
            return os.read(self.read, 512)
        except BlockingIOError:
            return b""

    def told(self, before: int) -> int:
        """The signal by which Slurm told of an end, if one came since; else ``before``."""
        return next((number for number in self.taken() if number in TOLD_BY_SLURM), before)

    def told_within(self, seconds: float) -> int:
        """The signal by which Slurm tells of an end until then; 0 if none came."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            select.select([self], [], [], left)
            number = self.told(0)
            if number:
                return number
        return 0


class Lines:
    """JSON lines over a connection; descriptors may come along with what is read."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []
        self._unread = b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def say(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        data = json.dumps(message).encode() + b"\n"
        passed = array.array("i", descriptors).tobytes()
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if descriptors else []
        sent = self.connection.sendmsg([data], extra)
        self.connection.sendall(data[sent:])

    def hear(self) -> list[dict[str, Any]] | None:
        """The messages that are complete now; None when the other end is gone."""
        size = array.array("i").itemsize
        try:
            data, extra, _, _ = self.connection.recvmsg(65536, socket.CMSG_SPACE(8 * size))
        except ConnectionError:
            return None
        for level, kind, passed in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(passed[: len(passed) - len(passed) % size])
                self.descriptors += numbers
        if not data or len(self._unread) > MAX_LINE_BYTES:
            return None
        *complete, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(line) for line in complete]

    def part(self, message: dict[str, Any]) -> None:
        """Say the last word. What is still unread when one end closes, the other may never read."""
        with suppress(OSError):
            self.connection.settimeout(FAREWELL_S)
            self.say(message)
            while self.hear() is not None:
                pass


def connect(address: bytes) -> Lines:
    """Raises ``OSError`` when nobody of ours listens in time."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_S)
            continue
        if peer_uid(connection) != os.geteuid():
            connection.close()
            raise PermissionError("another user listens in the place of the node's supervisor")
        return Lines(connection)


def orders(lines: Lines) -> dict[str, Any]:
    """The first message, within ``CONNECT_S``. Raises ``OSError``, ``ValueError``."""
    lines.connection.settimeout(CONNECT_S)
    while True:
        heard = lines.hear()
        if heard is None:
            raise ConnectionAbortedError("the node's supervisor went away")
        if heard:
            lines.connection.settimeout(None)
            return heard[0]


def begin(order: dict[str, Any], output: list[int]) -> int:
    """Start the launcher as the supervisor would have; its pid."""
    me = os.getpid()
    own = {k: v for k, v in os.environ.items() if k.startswith("SLURM") or k in SLURMS_OWN}
    if order.get("signals_whole_trees"):
        own[SIGNALS_ALL] = str(os.getppid())
    # A signal to what is no launcher yet waits: our handlers, which it has, would swallow it.
    signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_BY_SLURM)
    pid = os.fork()
    if pid == 0:
        become(order, own, output, me)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_BY_SLURM)
    return pid


def become(order: dict[str, Any], own: dict[str, str], output: list[int], parent: int) -> NoReturn:
    try:
        os.setsid()  # where Slurm signals a group of processes, this one is told by its parent
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (*TOLD_BY_SLURM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_BY_SLURM)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for target, fd in enumerate(output, start=1):
            os.dup2(fd, target)
        os.chdir(order["cwd"])
        argv = order["argv"]
        os.execvpe(argv[0], argv, {**order["env"], **own})  # noqa: S606
    except BaseException as error:  # noqa: BLE001 - this process must not go on as its parent
        os.write(2, f"cannot start the launcher: {error}\n".encode(errors="replace"))
    finally:
        os._exit(126)


def watch(pid: int, lines: Lines, wake: Wake, *, pass_on: bool) -> None:
    """Until the launcher has ended; tells how. ``pass_on``: that Slurm wants an end it says to this
    process alone.
    """
    told, asked = 0, False
    tethered: list[Lines | Wake] = [lines, wake]
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            # Slurm signals both, one after the other: its signal to us may be unread, or to come.
            told = wake.told(told)
            if not (told or asked) and ended_as_told(status):
                told = wake.told_within(SAME_SIGNAL_S)
            if lines in tethered:
                lines.part({"status": status, "told": told})
            return
        ready, _, _ = select.select(tethered, [], [])
        if wake in ready:
            before, told = told, wake.told(told)
            if pass_on and told != before and told in ENDING:
                os.kill(pid, told)
        if lines in ready:
            asked = True
            if not obey(pid, lines):
                tethered.remove(lines)
                os.kill(pid, signal.SIGKILL)


def ended_as_told(status: int) -> bool:
    """Whether the launcher ended as one does that is asked to end, by the status of ``waitpid``."""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) in ENDING
    return os.WEXITSTATUS(status) - 128 in ENDING


def obey(pid: int, lines: Lines) -> bool:
    """Pass signals on; False when the other end is gone."""
    heard = lines.hear()
    for message in heard or ():
        os.kill(pid, int(message["signal"]))
        os.kill(pid, signal.SIGCONT)
    return heard is not None


def main(tell: Callable[[str], object] = sys.stderr.write) -> int:
    node = os.environ.get("SLURMD_NODENAME", "")
    wake = Wake(signal.SIGCHLD, *TOLD_BY_SLURM)
    try:
        lines = connect(address_of(sys.argv[1], node))
        order = orders(lines)
    except (OSError, ValueError) as error:
        tell(f"{node}: no orders from the supervisor of this node: {error}\n")
        return NO_ORDERS
    pid = begin(order, lines.descriptors)
    lines.say({"job": os.environ.get("SLURM_JOB_ID", ""), "pid": pid})
    os.write(1, f"began {node}\n".encode())
    watch(pid, lines, wake, pass_on=not order.get("signals_whole_trees"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
