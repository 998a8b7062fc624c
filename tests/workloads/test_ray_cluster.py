"""How the workload `ray_cluster` starts Ray on a node; tests/hosts has it on real hosts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ray_cluster.ray_node import free_port, own_address
from ray_cluster.ray_start import (
    NodeStart,
    program_environment,
    start_environment,
    start_words,
)
from tests.time_limits import scaled
from tests.workloads.conftest import WORKLOADS, node_folder

HEAD = NodeStart(
    head="10.0.0.1",
    port=4000,
    address="10.0.0.1",
    is_head=True,
    files="/tmp/or-1/ray",
    cpus=8,
    gpus=2,
    object_store=80,
    dashboard_port=5000,
    client_port=6000,
)


def test_every_port_and_folder_is_the_clusters_own() -> None:
    """None of Ray's defaults is left, where another user's Ray may be."""
    words = start_words(HEAD)
    others = start_words(replace(HEAD, address="10.0.0.2", is_head=False, object_store=0))

    assert {"--head", "--port=4000", "--dashboard-port=5000", "--dashboard-host=127.0.0.1"} < {
        *words
    }
    assert {"--ray-client-server-port=6000", "--object-store-memory=80000000"} < {*words}
    assert {"--address=10.0.0.1:4000", "--node-ip-address=10.0.0.2"} < {*others}
    assert not [word for word in others if "dashboard-port" in word or "object-store" in word]
    assert "--include-dashboard=false" in start_words(replace(HEAD, dashboard_port=0))
    for each in (words, others):
        assert "--temp-dir=/tmp/or-1/ray" in each
        assert len([word for word in each if word.endswith("-port=0")]) == 6


def test_tasks_find_nothing_of_the_rank_or_of_another_cluster() -> None:
    """But they keep the run's mark, by which they are found at the end."""
    foreign = {
        "RANK": "1",
        "RAY_ADDRESS": "other:1",
        "PYTHONPATH": "/x",
        "TORCHELASTIC_RUN_ID": "1",
    }
    kept = {"ORCHESTRATE_ATTEMPT_DIR": "/a", "NCCL_SOCKET_IFNAME": "eth0", "RAY_AUTH_TOKEN": "t"}

    told = start_environment({**foreign, **kept})

    assert not foreign.keys() & told.keys()
    assert kept.items() < told.items()
    assert told["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.processes
def test_a_shell_reads_what_programs_need() -> None:
    text = program_environment(
        replace(HEAD, head="fd00::1"), "/opt/it's here/bin", "/tmp/or-1/token"
    )
    script = f'{text}printf \'%s|\' "$RAY_ADDRESS" "$RAY_AUTH_TOKEN_PATH" "$PATH"'
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=True,
    )

    assert done.stdout == "[fd00::1]:4000|/tmp/or-1/token|/opt/it's here/bin:/usr/bin|"


@pytest.mark.parametrize(
    "variables, told",
    [
        ({}, "RAY_AUTH_TOKEN is not set"),
        ({"RAY_AUTH_TOKEN": "t", "TORCHELASTIC_USE_AGENT_STORE": "True"}, "--launcher direct"),
    ],
)
@pytest.mark.processes
def test_a_cluster_for_everybody_is_refused(
    variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    """And one under torchrun, which has the port of the head."""
    node = node_folder(tmp_path / "node")
    done = subprocess.run(
        [sys.executable, str(WORKLOADS / "ray_cluster" / "run.py")],
        env={**node.environment(), **variables},
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )

    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.processes
def test_a_node_knows_the_address_that_the_head_sees() -> None:
    assert own_address("127.0.0.1", free_port("127.0.0.1")) == "127.0.0.1"
