"""This node's part of the cluster as a process: begun, watched, ended, and what it logged kept."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from .ray_start import NodeStart, start_environment, start_words

POLL_S = 0.1
DIAL_S = 2.0
KILL_S = 5.0
TAIL_BYTES = 4096
TAIL_LINES = 4
# Of each of Ray's logs the end comes home, of so many.
MAX_LOGS = 256
MAX_LOG_BYTES = 256 * 1024


class RayError(Exception):
    """Why Ray does not run on this node."""


class RayNode:
    """`ray start` in a session of its own. ``log``: what it prints."""

    def __init__(self, start: NodeStart, log: Path) -> None:
        self.start = start
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, ready_s: float) -> None:
        """Until this node is part of the cluster. Raises :class:`RayError`."""
        deadline = time.monotonic() + ready_s
        if not self.start.is_head:
            _wait_for_head(self.start, deadline, ready_s)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                start_words(self.start),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=start_environment(os.environ),
                start_new_session=True,
            )
        joined = Path(self.start.files, "ray_current_cluster")
        while not joined.exists():
            self.check()
            if time.monotonic() >= deadline:
                raise RayError(f"Ray did not start within {ready_s:g} s: {self._last_words()}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise :class:`RayError` if this node's part has ended; cheap, to be called often."""
        if self._process is not None and self._process.poll() is not None:
            raise RayError(f"Ray ended on this node: {self._last_words()}")

    def stop(self, within_s: float) -> None:
        """SIGTERM, by which `ray start` ends what it started, and SIGKILL at the deadline."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(KILL_S)

    def keep_logs(self, folder: Path) -> None:
        """Copy the ends of Ray's own logs there: its session folder goes with the cluster."""
        logs = sorted(Path(self.start.files).glob("session_2*/logs/*.*"))
        folder.mkdir(parents=True, exist_ok=True)
        for path in [p for p in logs if p.is_file() and not p.is_symlink()][:MAX_LOGS]:
            (folder / path.name).write_bytes(_tail(path, MAX_LOG_BYTES))

    def remove_files(self) -> None:
        """Sockets, objects on disk and session files, which are this cluster's alone."""
        shutil.rmtree(self.start.files, ignore_errors=True)

    def _last_words(self) -> str:
        lines = _tail(self._log, TAIL_BYTES).decode(errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        return " | ".join(said[-TAIL_LINES:]) or "it said nothing"


def _wait_for_head(start: NodeStart, deadline: float, ready_s: float) -> None:
    while True:
        try:
            socket.create_connection((start.head, start.port), DIAL_S).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                what = f"Ray's head at {start.cluster} was not there within {ready_s:g} s"
                raise RayError(f"{what}: {error}") from None
        time.sleep(POLL_S)


def _tail(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read(most)


def own_address(head: str, port: int) -> str:
    """This node's address as the head sees it; nothing is sent."""
    family = socket.AF_INET6 if ":" in head else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((head, port))
        return str(probe.getsockname()[0])


def free_port(host: str) -> int:
    """One that nobody listens at now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])
