"""Nodes that should be alike, and of which one lost its GPUs, on real hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk
from tests.time_limits import scaled

pytestmark = pytest.mark.hosts

TOOLS = "/usr/local/sbin"
ON_PAIR = ("--nodes", "vh1,vh2")
FOUR = """#!/bin/sh
case "$*" in
*--query-gpu=index,uuid,memory.used*) for i in 0 1 2 3; do echo "$i, GPU-$i, 4"; done ;;
*--query-gpu=*) for i in 0 1 2 3; do echo "$i, NVIDIA H100, GPU-$i, 81559, 4, 570.1"; done ;;
esac
"""
DEAD = "#!/bin/sh\necho 'the driver does not answer' >&2\nexit 9\n"


@pytest.fixture
def pair(desk: Desk, hosts: VirtualHosts) -> Iterator[Desk]:
    """The first host shows four GPUs, the second one's driver is dead; nothing is declared."""
    for name, program in (("vh1", FOUR), ("vh2", DEAD)):
        tools = hosts.home(name) / "tools"
        tools.mkdir()
        (tools / "nvidia-smi").write_text(program)
        (tools / "nvidia-smi").chmod(0o755)
        _on(hosts, name, "mount", "--bind", "/root/tools", TOOLS)
    desk.cluster = desk.project.parent / "lab.yaml"
    desk.cluster.write_text(hosts.inventory.read_text().replace("gpus: 0", ""))
    yield desk
    for name in ("vh1", "vh2"):
        _on(hosts, name, "umount", TOOLS)
        (hosts.home(name) / "tools" / "nvidia-smi").unlink()
        (hosts.home(name) / "tools").rmdir()


def _on(hosts: VirtualHosts, name: str, *argv: str) -> None:
    subprocess.run(hosts.exec_argv(name, list(argv)), check=True, timeout=scaled(20))


def test_a_job_for_gpus_does_not_become_one_for_cpus(pair: Desk, hosts: VirtualHosts) -> None:
    """`plan` and `run` refuse, with what nvidia-smi said there and what to do."""
    planned = pair.command("plan", "-C", str(pair.cluster), *ON_PAIR, "--", "rank.py")
    job, ending = pair.run("rank.py", "stay", options=ON_PAIR)

    assert (planned.returncode, ending.code) == (4, 4), planned.stderr
    assert ending.result["failure"]["node"] == "vh2"
    for said in (planned.stderr, ending.err):
        assert "vh2: shows no GPU: " in said
        assert "the driver does not answer" in said
        assert "--nodes '!vh2'" in said
        assert "gpus: 0" in said
    assert not job.events("Launched")
    assert not remains(hosts, job.run)


def test_a_node_that_may_be_left_out_is_left_out_loudly(pair: Desk, hosts: VirtualHosts) -> None:
    """When the run begins, and in its result."""
    pair.cluster.write_text(pair.cluster.read_text() + "\nmin_nodes: 1\n")
    pair.script("env.py", "import os; print('world', os.environ['WORLD_SIZE'])")
    fixed = ("run", "-C", str(pair.cluster), "--launcher", "direct", "--no-fabric-probe")
    chosen = ("--env", "CUDA_VISIBLE_DEVICES=1,2")
    done = pair.command(*fixed, *ON_PAIR, *chosen, "--", "env.py", within_s=90)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("world 2") == 2
    begin = done.stderr.partition("running 2 ranks on 1 node")[0]
    for said in (begin, done.stdout):
        assert "vh2: left out: shows no GPU: " in said
        assert "CUDA_VISIBLE_DEVICES=1,2 leaves 2 of 4 GPUs" in said
