"""Pid 1 of one virtual host, started as `python -m virtual_hosts_lib.guest`.

Protocol (pipes.py): one line of JSON (Setup), answers "pid N" and "booted"; then "network" once
the cable is laid, answer "ready" when sshd answers; then "keep" when the whole set stands.  Without
"keep" the host goes down by itself, so an interrupted or killed `up` leaves no host behind.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  sockets load it late, when the interpreter may be hidden
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import files, kernel, pipes

NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWCGROUP
)
ENVIRONMENT = {"PATH": pipes.TOOL_PATH}
SSHD_START_SECONDS = 20.0
QUEUES = "/dev/mqueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that pid 1 needs; paths are on the machine, `directory` holds this host's files."""

    name: str
    address: str
    prefix_length: int
    directory: str
    set_directory: str
    home: str
    home_owner: int
    share: list[str]
    cgroup: bool


def main() -> NoReturn:
    """Enter new namespaces, fork pid 1, report its pid as the machine sees it."""
    setup = Setup(**json.loads(pipes.read_line()))
    log = os.open(f"{setup.directory}/sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    kernel.unshare(NAMESPACES)
    pipes.detach()
    try:
        _boot(setup, log)
    except BaseException as error:  # noqa: BLE001  no half-made host may go on
        _report_failure(f"error {setup.name}: {type(error).__name__}: {error}")
        os._exit(1)
    _reap_forever()


def _boot(setup: Setup, log: int) -> None:
    os.setsid()
    os.umask(0o022)
    socket.sethostname(setup.name)
    _arrange_files(setup)
    pipes.report("booted")
    pipes.await_word("network")
    _configure_network(setup)
    sshd = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=ENVIRONMENT,
        cwd="/",
    )
    _wait_for_banner(setup.address, sshd)
    pipes.report("ready")
    pipes.await_word("keep")
    pipes.let_go()


def _arrange_files(setup: Setup) -> None:
    """The machine's file system read-only, with everything a machine owns made this host's own."""
    kernel.make_private("/")
    sources = _open_sources(setup)
    os.makedirs(QUEUES, exist_ok=True)  # as on every machine; a read-only /dev cannot gain it
    kernel.make_read_only("/")
    _mount_kernel_file_systems(setup)
    for target, mode in (("/tmp", "1777"), ("/run", "755"), ("/dev/shm", "1777"), ("/home", "755")):
        _mount_tmpfs(target, mode)
    if setup.home != "/root":
        _mount_tmpfs("/root", "711")
        os.mkdir(setup.home)
    os.mkdir("/run/sshd", 0o755)
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    writable = (setup.home, "/var/tmp", files.PODMAN_SETTINGS)
    for target, descriptor in sources.items():
        _bind_source(descriptor, target, read_only=target not in writable)
        os.close(descriptor)
    os.chown(setup.home, setup.home_owner, setup.home_owner)
    if os.path.isdir(setup.set_directory):  # another host's home and the client's key are not ours
        kernel.mount("tmpfs", setup.set_directory, "tmpfs", kernel.MS_RDONLY, "size=4k,mode=000")


def _open_sources(setup: Setup) -> dict[str, int]:
    """Open what will be bound, by target: the mounts to come hide the sources' paths."""
    paths: Mapping[str, str] = {
        setup.home: f"{setup.directory}/home",
        "/var/tmp": f"{setup.directory}/var-tmp",
        "/etc/ssh": f"{setup.directory}/ssh",
        "/proc/sys/kernel/random/boot_id": f"{setup.directory}/boot_id",
    }
    sources = {target: os.open(path, os.O_PATH) for target, path in paths.items()}
    for name in os.listdir(f"{setup.directory}/etc"):
        if os.path.exists(f"/etc/{name}"):  # a read-only /etc cannot gain a mount point
            sources[f"/etc/{name}"] = os.open(f"{setup.directory}/etc/{name}", os.O_PATH)
    for path in setup.share:
        sources[path] = os.open(path, os.O_PATH)
    return sources


def _bind_source(descriptor: int, target: str, *, read_only: bool) -> None:
    source = f"/proc/self/fd/{descriptor}"
    if not os.path.exists(target):
        if os.path.isdir(source):
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            Path(target).touch()
    kernel.bind(source, target, read_only=read_only)


def _mount_kernel_file_systems(setup: Setup) -> None:
    quiet = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", quiet)
    for path in ("/proc/sys", "/proc/sysrq-trigger"):  # these reach beyond the host
        if os.path.exists(path):
            kernel.bind(path, path, read_only=True)
    kernel.mount("sysfs", "/sys", "sysfs", quiet | kernel.MS_RDONLY)
    if setup.cgroup:
        kernel.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet)
    terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    kernel.mount("mqueue", QUEUES, "mqueue", quiet)
    kernel.mount("devpts", "/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, terminals)


def _mount_tmpfs(target: str, mode: str) -> None:
    kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"mode={mode}")


def _configure_network(setup: Setup) -> None:
    """Loopback and eth0; no IPv6 beyond loopback and no default route: traffic stays inside."""
    lines = (
        "link set lo up",
        "link set eth0 addrgenmode none",
        f"addr add {setup.address}/{setup.prefix_length} dev eth0",
        "link set eth0 up",
    )
    subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(lines) + "\n",
        text=True,
        check=True,
        timeout=SSHD_START_SECONDS,
        env=ENVIRONMENT,
    )


def _wait_for_banner(address: str, sshd: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SSHD_START_SECONDS
    while sshd.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection((address, 22), timeout=5.0) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"sshd does not answer (exit {sshd.returncode}); see sshd.log")


def _reap_forever() -> NoReturn:
    """Adopt and reap every orphan, as pid 1 must; leave only when killed from outside."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)  # no child at all, not even sshd; an orphan may still be handed to us


def _report_failure(text: str) -> None:
    try:
        pipes.report(text)
    except OSError:
        return  # nobody listens any more


if __name__ == "__main__":
    main()
