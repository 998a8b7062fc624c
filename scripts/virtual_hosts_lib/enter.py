"""Run a command as root inside a host: `python -m virtual_hosts_lib.enter PID GROUP... -- CMD...`.

Like nsenter(1), but it joins the host's control groups, takes the command down with itself, and
does not stop itself when the command is stopped (a throttled host would never continue it).
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

from . import kernel
from .pipes import TOOL_PATH

_SPACES = ("cgroup", "ipc", "uts", "net", "pid", "mnt")  # mnt last: it hides the machine's /proc
_NOT_FOUND = 127


def main() -> NoReturn:
    pid, *rest = sys.argv[1:]
    split = rest.index("--")
    _join(int(pid), rest[:split])
    child = os.fork()
    if child == 0:
        _become(rest[split + 1 :])
    for number in (signal.SIGINT, signal.SIGQUIT):  # a terminal sends them to the command as well
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _join(pid: int, groups: list[str]) -> None:
    for group in groups:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in _SPACES]
    for descriptor in spaces:
        kernel.set_namespace(descriptor)
        os.close(descriptor)


def _become(argv: list[str]) -> NoReturn:
    kernel.die_with_parent()
    environment = {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "PATH": TOOL_PATH,
        **{name: os.environ[name] for name in ("TERM", "LANG") if name in os.environ},
    }
    os.chdir("/root")
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        text = f"virtual_hosts exec: {argv[0]}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            line = shlex.quote(" ".join(argv))
            text += f"; CMD is a program and its arguments; for a shell's line: -- sh -c {line}"
        os.write(2, f"{text}\n".encode())
        os._exit(_NOT_FOUND)


if __name__ == "__main__":
    main()
