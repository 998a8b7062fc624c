"""Where the kubelet of the tests runs containers: a virtual host, or this machine.

A container has its own processes, its own view of the files (the machine's, with ``/tmp`` and
``/orchestrate/work`` of its own), and the network of its machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Makes the root of a container below $1 and becomes its first process. $2: a folder of the machine
# that is its work directory, or nothing.
ENTER = r"""
set -e
root=$1; kept=$2; shift 2
mkdir -p "$root"
mount -t tmpfs tmpfs "$root"
for path in /*; do
    case $path in /proc|/tmp|/orchestrate) continue;; esac
    if [ -L "$path" ]; then cp -P "$path" "$root$path"
    elif [ -d "$path" ]; then mkdir "$root$path"; mount --rbind "$path" "$root$path"
    fi
done
mkdir -p "$root/proc" "$root/tmp" "$root/orchestrate/work" "$root/root"
chmod 1777 "$root/tmp"
chmod 777 "$root/orchestrate/work"
mount -t proc proc "$root/proc"
if [ -n "$kept" ]; then mkdir -p "$kept"; mount --bind "$kept" "$root/orchestrate/work"; fi
exec chroot "$root" "$@"
"""
SPACES = ("--mount", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
}


@dataclass(slots=True)
class Container:
    """A running container. ``process`` is what holds it, ``init`` its first process."""

    process: subprocess.Popen[bytes]
    argv: Sequence[str]
    env: Mapping[str, str]
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def init(self) -> int:
        """Its first process, as this machine numbers it; 0 before it is there."""
        found = self.process.pid
        for _ in range(4):
            if _is_first(found):
                return found
            children = _children(found)
            if not children:
                return 0
            found = children[0]
        return 0

    @property
    def running(self) -> bool:
        """Whether its first process executes its program."""
        init = self.init
        try:
            words = Path(f"/proc/{init}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return bool(init) and words[:2] == [word.encode() for word in self.argv[:2]]

    def execute(self, argv: Sequence[str], *, stdin: bool) -> subprocess.Popen[bytes]:
        """Another command in it."""
        words = ["nsenter", f"--target={self.init}", "--all", "--root", "--wd", "--"]
        words += ["env", "-i", *(f"{k}={v}" for k, v in {**ENVIRONMENT, **self.env}.items()), *argv]
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.commands.append(process)
        return process

    def signal(self, number: int) -> None:
        if init := self.init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, number)

    def kill(self) -> None:
        """With it everything in it ends."""
        self.signal(signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for command in self.commands:
            command.kill()
            command.wait()


def start_container(
    enter: Sequence[str], name: str, argv: Sequence[str], env: Mapping[str, str], kept: str = ""
) -> Container:
    """``enter``: words that execute what follows them on the machine. ``kept``: the folder there
    that is its work directory, and stays; ``""`` = it is gone with the container.
    """
    words = [*enter, "unshare", *SPACES, "sh", "-c", ENTER, "sh", f"/run/pods/{name}", kept, *argv]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT, **env},
        start_new_session=True,
    )
    return Container(process, argv, env)


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def _is_first(pid: int) -> bool:
    """Whether it is the first of a PID namespace below that of its parent's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        own = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        command = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, StopIteration):
        return False
    return own[-1] == "1" and len(own) > 1 and command != "unshare"
