"""Runs one rank under a launcher and records exactly how it ended.

``python3 -I -S rank_shim.py -- argv``: a launcher such as torchrun starts this in place of a rank.
It sends the rank's output to the rank's own log files, forwards signals, ends the way the rank
ended, and leaves two small files for the supervisor: ``ranks/rank-<R>-<pid>.start`` and ``.end``.

Programs save at the first signal that asks them to end and leave at the second. So the rank leads a
session of its own, out of reach of a launcher that signals process groups (as torchrun does), and
of all signals that ask it to end only the first is forwarded; and none where somebody signals shim
and rank alike, as some schedulers do.

A program of its own, with few imports: every rank pays for its start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

PR_SET_PDEATHSIG = 1
PARENT_DIED = signal.SIGRTMIN + 5  # launchers do not use it, so that it means only this
ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}  # asks the rank to end
FORWARDED = {*ENDING, signal.SIGUSR1, signal.SIGUSR2}
WAITED = {*FORWARDED, signal.SIGCHLD, signal.SIGCONT, PARENT_DIED}
# The pid of who signals every process of the node's share at once, if there is somebody.
SIGNALS_ALL = "ORCHESTRATE_SIGNALS_ALL"
# A launcher that was signalled, too, may be quicker to signal us than the one who signals all is.
SAME_MOMENT_S = 0.3
GRACE = "ORCHESTRATE_GRACE_S"  # seconds between the request to end and KILL
DEFAULT_GRACE_S = 10.0
LONGEST_WAIT_S = 3600.0
RECORD_BYTES = 256
KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
LAST_WORDS_BYTES = 64 * 1024  # of standard error, that tell why a rank failed
NOT_EXECUTABLE, NOT_FOUND = 126, 127
MAX_CPU = 65536


def start_time(pid: int) -> int:
    """Clock ticks since boot; with the pid it identifies a process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read(4096).rpartition(b")")[2].split()[19])


def die_with_parent(parent: int, number: int) -> None:
    """Get signal ``number`` when ``parent`` ends, also if it has already ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def reserve_bytes(fd: int, size: int) -> None:
    """Set ``size`` bytes of disk aside for ``fd``, without making the file longer: what is written
    there later finds room, however full the disk is by then. Not every file system can.
    """
    fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
    if fallocate is not None:
        fallocate(fd, KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(size))


def near_processors(text: str, local_rank: int, allowed: set[int]) -> set[int]:
    """The processors for a rank out of ``text``, such as ``0-31;32-63``: one list for each local
    rank. Empty for what cannot be read or is not ours to use.
    """
    lists = text.split(";")
    if not 0 <= local_rank < len(lists):
        return set()
    cpus: set[int] = set()
    try:
        for part in lists[local_rank].split(","):
            low, _, high = part.partition("-")
            cpus |= allowed & set(range(int(low), min(int(high or low), MAX_CPU) + 1))
    except ValueError:
        return set()
    return cpus


def bind_rank(env: Mapping[str, str], local_rank: int) -> None:
    """Bind this process to the processors beside the rank's GPU, if the plan names them."""
    text = env.get("ORCHESTRATE_RANK_CPUS", "")
    cpus = near_processors(text, local_rank, os.sched_getaffinity(0)) if text else set()
    if cpus:
        os.sched_setaffinity(0, cpus)


def execute_program(argv: list[str], mask: Iterable[int]) -> NoReturn:
    """Become ``argv``, with the signals that Python changed put back."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - running the given program is the purpose
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        message = f"cannot start {argv[0]!r}: {error.strerror}{_hint(argv[0], error.errno)}\n"
    os.write(2, message.encode(errors="replace"))
    os._exit(code)


def _hint(program: str, number: int | None) -> str:
    """What the kernel's word for it hides: of a script, it may be about another file."""
    try:
        with open(program, "rb") as file:
            line = file.readline(256)
        if number == errno.ENOENT and line.startswith(b"#!"):
            named = line[2:].strip(b" \t\n").decode(errors="replace")
            ends = "; the line ends as in Windows" if named.endswith("\r") else ""
            return f" (its first line names {named!r}{ends})"
        if number == errno.ENOEXEC and not line.startswith((b"#!", b"\x7fELF")):
            return " (its first line names no program: #!/bin/sh)"
        if number == errno.EACCES and os.statvfs(program).f_flag & os.ST_NOEXEC:
            return " (its file system is mounted noexec)"
    except OSError:
        pass
    return ""


class Rank:
    """One rank's process, its records and its logs."""

    def __init__(
        self, spool: str, rank: int, local_rank: int, grace_s: float, signals_all: int = 0
    ) -> None:
        self.rank = rank
        self.local_rank = local_rank
        self.logs = [os.path.join(spool, "logs", f"rank-{rank}.{end}") for end in ("out", "err")]
        self.record = os.path.join(spool, "ranks", f"rank-{rank}-{os.getpid()}")
        self.launcher = os.getppid()
        self.grace_s = grace_s
        self.signals_all = signals_all
        self.told = 0
        self.told_by = 0
        self._unsaid = 0  # the request to end that the rank has not got yet
        self._say_at = float("inf")
        self._all_signalled_at = float("-inf")
        # Reserved now, so that the end can be recorded on a disk that is full by then.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._end = os.open(self.record + ".pending", flags, 0o600)
        os.write(self._end, b" " * RECORD_BYTES)

    def run(self, argv: list[str]) -> int:
        """The wait status of ``argv``."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
        die_with_parent(self.launcher, PARENT_DIED)
        me = os.getpid()
        child = os.fork()
        if child == 0:
            os.setsid()
            die_with_parent(me, signal.SIGKILL)
            self._redirect()
            bind_rank(os.environ, self.local_rank)
            execute_program(argv, mask)
        self._write_start(child)
        return self._wait(child)

    def _redirect(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        for fd, path in enumerate(self.logs, start=1):
            os.dup2(os.open(path, flags, 0o600), fd)
        reserve_bytes(2, LAST_WORDS_BYTES)

    def _write_start(self, child: int) -> None:
        me = os.getpid()
        text = (
            f'{{"rank":{self.rank},"local_rank":{self.local_rank},"t":{time.time()},'
            f'"pid":{child},"start_time":{start_time(child)},'
            f'"shim":{me},"shim_start_time":{start_time(me)},"launcher":{self.launcher}}}\n'
        )
        staging = self.record + ".starting"
        with open(staging, "x") as file:
            file.write(text)
        os.rename(staging, self.record + ".start")

    def _wait(self, child: int) -> int:
        deadline = float("inf")
        while True:
            until = min(deadline, self._say_at)
            left_s = min(LONGEST_WAIT_S, max(0.0, until - time.monotonic()))
            info = signal.sigtimedwait(WAITED, left_s)
            if info is None:
                if time.monotonic() >= self._say_at:
                    self._ask_to_end(child)
                if time.monotonic() >= deadline:
                    os.kill(child, signal.SIGKILL)
                    deadline = float("inf")
            elif info.si_signo == signal.SIGCHLD:
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    return status
            elif self.signals_all and info.si_pid == self.signals_all:
                self._note_signal(info.si_signo, info.si_pid)
            elif info.si_signo in FORWARDED:
                self._forward_signal(child, info.si_signo, info.si_pid)
            elif info.si_signo == PARENT_DIED and os.getppid() != self.launcher:
                self._forward_signal(child, signal.SIGTERM, self.launcher)
                deadline = time.monotonic() + self.grace_s

    def _note_signal(self, number: int, sender: int) -> None:
        """The rank got this one, too. CONT comes with what asks for an end, and is never lost to a
        signal of the same number that was pending.
        """
        self._all_signalled_at = time.monotonic()
        if number in ENDING and not self.told:
            self.told, self.told_by = int(number), sender
        self._say_at = float("inf")

    def _forward_signal(self, child: int, number: int, sender: int) -> None:
        if number not in ENDING:
            os.kill(child, number)  # not reaped yet, so the pid is still the rank's
        elif not self.told:
            self.told, self.told_by, self._unsaid = int(number), sender, int(number)
            now = time.monotonic()
            if now - self._all_signalled_at < SAME_MOMENT_S:
                return  # it came with that, to the launcher as to the rank
            if self.signals_all:
                self._say_at = now + SAME_MOMENT_S
            else:
                self._ask_to_end(child)

    def _ask_to_end(self, child: int) -> None:
        """Ask the rank to end."""
        self._say_at = float("inf")
        os.kill(child, self._unsaid)
        if self._unsaid == signal.SIGTERM:
            os.kill(child, signal.SIGCONT)  # a stopped rank hears it only when it goes on

    def write_end(self, status: int) -> None:
        """Complete the record and give it its name."""
        signalled = os.WIFSIGNALED(status)
        kind = "signalled" if signalled else "exited"
        value = os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)
        text = (
            f'{{"outcome":{{"{kind}":{value}}},"t":{time.time()},'
            f'"told":{self.told},"told_by":{self.told_by}}}'
        )
        os.pwrite(self._end, text.encode(), 0)
        os.rename(self.record + ".pending", self.record + ".end")


def end_alike(status: int) -> NoReturn:
    """Exit with the same code, or die by the same signal without a second core dump."""
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def main() -> None:
    """Raises ``KeyError`` or ``ValueError`` outside of a launcher's environment."""
    if sys.argv[1:2] != ["--"] or len(sys.argv) < 3:
        raise SystemExit("usage: rank_shim.py -- program [argument ...]")
    environment = os.environ
    # Ranks that are a world of their own count from 0 on every node; the run knows them apart.
    number = int(environment["RANK"]) + int(environment.get("ORCHESTRATE_FIRST_RANK", "0"))
    local = int(environment.get("LOCAL_RANK", "0"))
    grace_s = float(environment.get(GRACE, DEFAULT_GRACE_S))
    signals_all = int(environment.get(SIGNALS_ALL, "0"))
    rank = Rank(environment["ORCHESTRATE_ATTEMPT_DIR"], number, local, grace_s, signals_all)
    status = rank.run(sys.argv[2:])
    try:
        rank.write_end(status)
    finally:
        end_alike(status)


if __name__ == "__main__":
    main()
