"""Being the command: a fork takes on all that a start of Python would have found."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from orchestrator.adapters.end_process import end_process
from orchestrator.adapters.warm.keeper import Command

_MAX_FD = 1 << 20
_NAME = b"orchestrate"


def become(command: Command, run: Callable[[], int]) -> NoReturn:
    """Run it in this process and end with its exit code, as Python itself would."""
    os.setpgid(0, 0)
    os.fchdir(command.folder)
    _place_descriptors(command.descriptors)
    _set_environment(command.environ)
    _set_signals(command.ignored, command.blocked)
    sys.argv[:] = [os.fsdecode(word) for word in command.argv]
    _open_streams()
    _set_name()
    try:
        code = run()
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            sys.stderr.write(f"{error.code}\n")
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    end_process(code)


def _place_descriptors(descriptors: dict[int, int]) -> None:
    """The client's by the client's numbers; no other stays."""
    above = 1 + max(*descriptors, *descriptors.values())
    aside = {
        number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above)
        for number, descriptor in descriptors.items()
    }
    os.closerange(3, above)
    for number, descriptor in aside.items():
        os.dup2(descriptor, number)
    os.closerange(above, _MAX_FD)


def _set_environment(environ: dict[bytes, bytes]) -> None:
    os.environ.clear()
    os.environb.update(environ)
    time.tzset()


def _set_signals(ignored: int, blocked: int) -> None:
    """As Python leaves them at its start. SIGINT stays blocked until ``main`` lets it through."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if ignored & 1 << (number - 1):
            signal.signal(number, signal.SIG_IGN)
        elif number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    members = {number for number in range(1, 65) if blocked & 1 << (number - 1)}
    signal.pthread_sigmask(signal.SIG_SETMASK, members | {signal.SIGINT})


def _open_streams() -> None:
    """Encodings and error handlers are those of this process, which the same variables chose."""
    modes = {"stdin": "r", "stdout": "w", "stderr": "w"}
    for number, (name, mode) in enumerate(modes.items()):
        stream = _open_stream(number, mode, getattr(sys, f"__{name}__"), name)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _open_stream(number: int, mode: str, like: Any, name: str) -> TextIO:
    unbuffered = mode == "w" and like.write_through
    file: Any = open(number, f"{mode}b", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    (file if unbuffered else file.raw).name = f"<{name}>"
    at_once = not like.write_through and (name == "stderr" or os.isatty(number))
    stream: Any = io.TextIOWrapper(
        file,
        like.encoding,
        like.errors,
        "\n",
        line_buffering=at_once,
        write_through=like.write_through,
    )
    stream.mode = mode
    opened: TextIO = stream
    return opened


def _set_name() -> None:
    """For ``ps`` and ``top``; the words stand in the command line of the client."""
    fd = os.open("/proc/self/comm", os.O_WRONLY)
    try:
        os.write(fd, _NAME)
    finally:
        os.close(fd)
