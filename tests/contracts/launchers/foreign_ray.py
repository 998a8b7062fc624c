"""A Ray cluster that is somebody else's: started apart from what is tested, and looked at."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.time_limits import Deadline, scaled, wait_for_exit

UP_S = 90.0
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_memory_monitor_refresh_ms": "0",
}
FIXED = (
    *("--block", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000"),
    *("--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"),
    *("--dashboard-agent-listen-port=0", "--disable-usage-stats"),
)
HEAD = ("--head", "--include-dashboard=false", "--no-monitor")
# What one can see of a cluster: its nodes, what is free, and whose actors and groups are there.
LOOK = """
import json, sys
import ray
from ray.util.placement_group import placement_group_table
ray.init(sys.argv[1], log_to_driver=False, configure_logging=False, namespace="a-look")
groups = placement_group_table().values()
print(json.dumps({
    "nodes": sorted(node["NodeID"] for node in ray.nodes() if node["Alive"]),
    "free": ray.available_resources().get("CPU"),
    "groups": [group["state"] for group in groups if group["state"] != "REMOVED"],
}))
"""

Prefix = Callable[[Sequence[str]], list[str]]


@contextmanager
def part(prefix: Prefix, temp: str, *options: str) -> Iterator[None]:
    """One node's part of it, by `ray start`, for as long as this lasts."""
    quiet = ["env", *(f"{name}={value}" for name, value in QUIET.items())]
    words = [*quiet, sys.executable, "-m", "ray.scripts.scripts", "start", *FIXED, *options]
    with subprocess.Popen(
        prefix([*words, f"--temp-dir={temp}"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            wait_for_exit(process, 30)


@contextmanager
def on_this_machine(
    root: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A cluster of one node; its address. Ray goes by none of the loopback if there is another."""
    here = own_address()
    where = (f"--node-ip-address={here}", f"--port={port}")
    more = [f"{name}={value}" for name, value in (environment or {}).items()]
    with part(lambda words: ["env", *more, *words], str(root), *HEAD, *where):
        wait_for((root / "ray_current_cluster").exists)
        yield f"{here}:{port}"


def own_address() -> str:
    """What this machine would send from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 53))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def wait_for(there: Callable[[], object]) -> None:
    deadline = Deadline(UP_S)
    while not there():
        assert not deadline.passed, "no Ray cluster came up"
        time.sleep(0.1)


def look(prefix: Prefix, address: str) -> dict[str, Any]:
    """What there is of the cluster at ``address``, seen from one of its nodes."""
    argv = prefix([sys.executable, "-c", LOOK, address])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=scaled(60), check=True)
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen
