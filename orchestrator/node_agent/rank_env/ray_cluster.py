"""This node's part of a Ray cluster of the run's own: started, watched, ended; nobody else's.

Its own ports, its own directory for files and sockets, no token that lies around on the machine.
Nothing here stops Ray by name: only the process that was started, which takes its own along.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

from orchestrator.node_agent.process.rank_shim import die_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

UP_S = 120.0
DOWN_S = 8.0
POLL_S = 0.1
DIAL_S = 2.0
TAIL_BYTES = 4096
# Small: objects never travel here. Ray refuses less.
STORE_BYTES = 80_000_000
# Ray gives its own processes 30 s on a host of any load, a number that nothing can change.
TOO_SLOW = "timed out during startup"
# Nothing that slows ranks down, kills them for memory, or tells the vendor.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    "RAY_enable_metrics_collection": "0",
    # How long it waits for the control service, in seconds; ours is the limit that counts.
    "RAY_gcs_server_port_wait_time_s": f"{UP_S:.0f}",
    "RAY_NUM_REDIS_GET_RETRIES": f"{UP_S:.0f}",
}
# Ray's own settings of the user's shell are about another cluster; PYTHONPATH is for the ranks.
DROPPED = ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_TMPDIR", "PYTHONPATH")


class RayFailed(Exception):
    """Why Ray does not serve."""


class RayUnauthorised(RayFailed):
    """The cluster asks for a token that it was not given."""


class RayCluster:
    """``address``: where the cluster's control service is, on its head; port 0 = any free one.
    ``check`` raises to break off a wait.
    """

    def __init__(
        self, address: str, *, head: bool, resource: str, scratch: str, check: Callable[[], None]
    ) -> None:
        host, _, port = address.rpartition(":")
        self.host = host.strip("[]")
        self.port = int(port) or free_port(self.host)
        self._head = head
        self._resource = resource
        self._scratch = scratch
        self._check = check
        self._process: subprocess.Popen[bytes] | None = None
        self._log = os.path.join(scratch, "start.log")

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def own_address(self) -> str:
        """This node's address as the head sees it."""
        if self._head:
            return self.host
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
            probe.connect((self.host, self.port))
            return str(probe.getsockname()[0])

    def start(self) -> None:
        """Until this node is part of it. Raises :class:`RayFailed`."""
        deadline = time.monotonic() + UP_S
        if not self._head:
            self._wait_for_head(deadline)
        self._begin()
        joined = os.path.join(self._scratch, "ray", "ray_current_cluster")
        while not os.path.exists(joined):
            if self._was_too_slow():
                self._begin()
            self.watch()
            if time.monotonic() >= deadline:
                raise RayFailed(f"Ray did not start within {UP_S:.0f} s: {self._last_words()}")
            time.sleep(POLL_S)

    def _was_too_slow(self) -> bool:
        """Whether Ray itself has given up waiting for its own processes."""
        ended = self._process is not None and self._process.poll() is not None
        return ended and TOO_SLOW in self._last_words()

    def _begin(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in DROPPED}
        parent = os.getpid()
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self._argv(),
                env={**environment, **SETTINGS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._scratch,
                start_new_session=True,
                # Single-threaded here: Ray is not imported yet.
                preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),  # noqa: PLW1509
            )

    def _argv(self) -> list[str]:
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        words += ["--head", f"--port={self.port}"] if self._head else [f"--address={self.address}"]
        if self._head:
            words += ["--include-dashboard=false", "--no-monitor"]
            if _serves_clients():
                words.append(f"--ray-client-server-port={free_port(self.host)}")
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent")
        return [
            *words,
            f"--node-ip-address={self.own_address}",
            f"--temp-dir={os.path.join(self._scratch, 'ray')}",
            f"--resources={json.dumps({self._resource: 1})}",
            *("--num-cpus=0", "--num-gpus=0", f"--object-store-memory={STORE_BYTES}"),
            *("--min-worker-port=0", "--max-worker-port=0", "--metrics-export-port=0"),
            *(f"--{name}-port=0" for name in ports),
            *("--include-log-monitor=false", "--disable-usage-stats"),
        ]

    def _wait_for_head(self, deadline: float) -> None:
        while True:
            try:
                socket.create_connection((self.host, self.port), DIAL_S).close()
                return
            except OSError as error:
                if time.monotonic() >= deadline:
                    why = f"Ray's head at {self.address} was not there within {UP_S:.0f} s: {error}"
                    raise RayFailed(why) from None
            self._check()
            time.sleep(POLL_S)

    def watch(self) -> None:
        """Raises :class:`RayFailed` if this node's part has ended."""
        self._check()
        if self._process is not None and self._process.poll() is not None:
            raise RayFailed(f"Ray ended on this node: {self._last_words()}")

    def _last_words(self) -> str:
        with open(self._log, "rb") as file:
            file.seek(max(0, os.path.getsize(self._log) - TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line][-3:]) or "it said nothing"

    def stop(self) -> None:
        """End what was started here; the supervisor sweeps after us."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(DOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port(host: str) -> int:
    """One that nobody has now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def _serves_clients() -> bool:
    """Whether this Ray would serve clients, at a port that another cluster may have."""
    from importlib.util import find_spec

    return find_spec("grpc") is not None
