"""The command line and the environment of `ray start` on one node. Pure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
MEGABYTE = 1_000_000
# Usage statistics stay here, and whoever ends the cluster does not wait for its tasks.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
# Workers inherit the environment of `ray start`. What a login says of another cluster, and what
# makes this rank a rank, is not theirs: torch would join a world by it. The threads of a task are
# Ray's to say.
FOREIGN = frozenset(
    "RAY_ADDRESS RAY_NAMESPACE RAY_TMPDIR PYTHONPATH RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE "
    "GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK ROLE_WORLD_SIZE MASTER_ADDR MASTER_PORT "
    "OMP_NUM_THREADS".split()
)
# Where there is a port for each of these, it is a free one: others may run Ray on the machine.
AGENT_PORTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent")


@dataclass(frozen=True, kw_only=True)
class NodeStart:
    """What one node brings into the cluster.

    ``head`` and ``port``: where the control service is; ``address``: this node's. ``files``: a
    folder with a short path. ``object_store``: MB, 0 = Ray's choice. ``dashboard_port`` and
    ``client_port``: of the head; 0 = it has none.
    """

    head: str
    port: int
    address: str
    is_head: bool
    files: str
    cpus: int
    gpus: int
    object_store: int = 0
    dashboard_port: int = 0
    client_port: int = 0

    @property
    def cluster(self) -> str:
        """As Ray names the cluster: ``HOST:PORT``."""
        return f"[{self.head}]:{self.port}" if ":" in self.head else f"{self.head}:{self.port}"


def start_words(node: NodeStart) -> list[str]:
    """`ray start`, which stays until its node ends."""
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        *(_head_words(node) if node.is_head else (f"--address={node.cluster}",)),
        f"--node-ip-address={node.address}",
        f"--temp-dir={node.files}",
        *(f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}"),
        *((f"--object-store-memory={node.object_store * MEGABYTE}",) if node.object_store else ()),
        *("--min-worker-port=0", "--max-worker-port=0", "--metrics-export-port=0"),
        *(f"--{name}-port=0" for name in AGENT_PORTS),
    ]


def _head_words(node: NodeStart) -> Iterator[str]:
    yield from ("--head", f"--port={node.port}")
    if node.dashboard_port:
        yield from ("--include-dashboard=true", f"--dashboard-host={LOOPBACK}")
        yield f"--dashboard-port={node.dashboard_port}"
    else:
        yield "--include-dashboard=false"
    if node.client_port:
        yield f"--ray-client-server-port={node.client_port}"


def start_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What `ray start`, and by it every task and actor, finds."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in FOREIGN and not name.startswith("TORCHELASTIC_")
    }
    return {**kept, **SETTINGS}


def program_environment(node: NodeStart, interpreter_folder: str, token_file: str) -> str:
    """Lines for a shell on the node: what a program needs to find the cluster."""
    return "".join(
        f"export {name}={value}\n"
        for name, value in (
            ("RAY_ADDRESS", node.cluster),
            ("RAY_AUTH_MODE", "token"),
            ("RAY_AUTH_TOKEN_PATH", shlex.quote(token_file)),
            ("PATH", f'{shlex.quote(interpreter_folder)}:"$PATH"'),
        )
    )
