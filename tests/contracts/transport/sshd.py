"""A real OpenSSH server on the loopback interface, with a home and a login shell of its own.

It runs in a private mount namespace in which the account's entry in /etc/passwd names another home
directory and shell: what a test sees is sshd's ordinary behaviour, and the machine stays as it is.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.model.inventory import NodeSpec, SshEndpoint, TransportKind
from tests.time_limits import Deadline, scaled, wait_for_exit

START_TIMEOUT_S = 10.0
USER = getpass.getuser()

_names = itertools.count()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path, *, kind: str = "ed25519") -> Path:
    """A new key pair without a passphrase; ``path`` is its private half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, timeout=scaled(20))
    return path


def public_half(key: Path) -> str:
    """``type base64`` of a key's public half, without the comment."""
    return " ".join(key.with_name(f"{key.name}.pub").read_text().split()[:2])


@dataclass
class Sshd:
    """One server. ``options`` are lines of sshd_config; its keys lie in ``root``."""

    root: Path
    shell: str = "/bin/sh"
    options: tuple[str, ...] = ()
    name: str = field(default_factory=lambda: f"server-{next(_names)}")
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.host_key = make_key(self.root / "host_key")
        self.client_key = make_key(self.root / "client_key")
        self.log_file = self.root / "sshd.log"
        self.ssh_config = self.root / "ssh_config"
        self.known_hosts = self.root / "known_hosts"
        (self.home / ".ssh").mkdir(mode=0o700, parents=True)
        (self.home / ".ssh" / "authorized_keys").write_text(f"{public_half(self.client_key)}\n")
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_half(self.host_key)}\n")
        self.ssh_config.write_text(self.config_block())
        self._process: subprocess.Popen[bytes] | None = None

    def config_block(self) -> str:
        """How a client reaches this server, as an ssh_config block named like the server."""
        return (
            f"Host {self.name}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {USER}\n"
            f"  IdentityFile {self.client_key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile none\n"
        )

    def node(self, transport: TransportKind = TransportKind.ASYNCSSH) -> NodeSpec:
        """This server as an inventory declares it."""
        endpoint = SshEndpoint(host=self.name, ssh_config=str(self.ssh_config))
        return NodeSpec(name=self.name, transport=transport, ssh=endpoint)

    def start(self) -> None:
        config = self.root / "sshd_config"
        config.write_text("\n".join([*self.options, *self._fixed_options()]) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        passwd = self._passwd()
        script = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
        server = [shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin") or "sshd", "-D"]
        server += ["-f", str(config), "-E", str(self.log_file)]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(passwd), *server],
            stdin=subprocess.DEVNULL,
        )
        self._await_listening()

    def stop(self) -> None:
        """End the server and every session of it."""
        if self._process is None:
            return
        sessions = self.session_pids()
        self._process.kill()
        wait_for_exit(self._process, START_TIMEOUT_S)
        for pid in sessions:
            kill(pid)
        self._process = None

    def session_pids(self) -> list[int]:
        """The processes that serve a connection (not the listener)."""
        return [] if self._process is None else _descendants(self._process.pid, "sshd")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def count_logged(self, text: str) -> int:
        """How often the log has ``text``."""
        return self.log().count(text)

    def _fixed_options(self) -> list[str]:
        return [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"PidFile {self.root / 'sshd.pid'}",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes no",
            "UsePAM no",
            "LogLevel DEBUG1",
        ]

    def _passwd(self) -> Path:
        lines = Path("/etc/passwd").read_text().splitlines()
        own = next(line for line in lines if line.startswith(f"{USER}:")).split(":")
        changed = ":".join([*own[:5], str(self.home), self.shell])
        path = self.root / "passwd"
        kept = [line for line in lines if not line.startswith(f"{USER}:")]
        path.write_text("\n".join([changed, *kept]) + "\n")
        return path

    def _await_listening(self) -> None:
        assert self._process is not None
        deadline = Deadline(START_TIMEOUT_S)
        while not deadline.passed:
            assert self._process.poll() is None, self.log()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise TimeoutError(f"sshd does not listen on port {self.port}")


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _descendants(ancestor: int, program: str) -> list[int]:
    parents: dict[int, int] = {}
    programs: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(tail.split()[1])
        programs[pid] = head.partition("(")[2]
    found = []
    for pid, name in programs.items():
        line = pid
        while line in parents and line != ancestor:
            line = parents[line]
        if line == ancestor and pid != ancestor and name.startswith(program):
            found.append(pid)
    return found
