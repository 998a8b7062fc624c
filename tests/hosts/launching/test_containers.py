"""Ranks in containers of a real rootless podman, on hosts that share nothing but the network."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from tests.hosts.conftest import RaiseHosts
from tests.hosts.containers import (
    IMAGE,
    Images,
    assert_nothing_left,
    contained_inventory,
    containers,
)
from tests.hosts.processes import look, remains
from tests.hosts.running import RANK, Desk, Job, budgets, open_desk, wait_until
from tests.hosts.saving import saving
from tests.hosts.sets import ssh
from tests.time_limits import budget

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(280)]  # an image is loaded, on busy machines

# Every rank meets rank 0, which says who came; each says where it is.
MEET = """
import os, socket, time
from pathlib import Path

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
me = f"{rank}@{socket.gethostname()}"
if rank == 0:
    with socket.create_server(("", place[1])) as server:
        met = [me]
        while len(met) < size:
            with server.accept()[0] as peer:
                met.append(peer.recv(100).decode())
    print("met", *sorted(met))
else:
    until = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(place, timeout=30) as peer:
                peer.send(me.encode())
            break
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
print(Path("/etc/image").read_text().strip(), os.environ["FROM_IMAGE"], os.environ["TOKEN"])
print(Path.cwd().name, Path(f"/proc/{os.getpid()}/ns/pid").readlink(), flush=True)
output = Path(os.environ["ORCHESTRATE_OUTPUT_DIR"]) / f"of-{rank}"
output.write_text(me)
"""
SAVE = saving("CHECKPOINT", "OUTPUT")

WAIT = """
import os, time
print("ready", flush=True)
while not os.path.exists(os.environ["ORCHESTRATE_CHECKPOINT_DIR"] + "/go"):
    time.sleep(0.05)
"""

# Rank 1 gives up once rank 0 is there, which does not end when it is asked to.
STUBBORN = """
import os, signal, socket, sys, time
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked\\n"))
    server = socket.create_server(("", place[1]))
    while True:
        server.accept()
for _ in range(1200):
    try:
        socket.create_connection(place, timeout=30)
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
print("giving up with 3", file=sys.stderr)
sys.exit(3)
"""
TWO = ["--nodes", "vh[1-2]"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def cluster(
    raise_hosts: RaiseHosts, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualHosts]:
    """Three hosts whose user is not root."""
    share = [str(images.folder)]
    options = Options(count=3, python=sys.executable, user="worker", share=share)
    with raise_hosts(tmp_path_factory.mktemp("container-hosts"), options) as hosts:
        yield hosts


@pytest.fixture
def desk(cluster: VirtualHosts, images: Images, tmp_path: Path) -> Iterator[Desk]:
    inventory = tmp_path / "contained.yaml"
    inventory.write_text(contained_inventory(cluster, images.archive("image.tar")))
    with open_desk(tmp_path, inventory) as desk:
        desk.script("rank.py", RANK)
        yield desk
    cluster.heal()


def kept_by(job: Job, name: str) -> str:
    """The folder of the run's checkpoints on a host."""
    return f"~/.orchestrate/node/runs/{job.run}/{name}/checkpoints"


def running(cluster: VirtualHosts) -> dict[str, str]:
    """The ids of the containers, by host."""
    return {name: ssh(cluster, name, "podman ps --quiet --no-trunc", 30) for name in cluster.names}


def test_ranks_meet_in_containers(desk: Desk, cluster: VirtualHosts, images: Images) -> None:
    """Network, environment, secrets, folders and pids are as without; the files are the image's."""
    desk.script("meet.py", MEET)
    options = ["--env", "TOKEN"]
    job, ending = desk.run("meet.py", options=options, env={"TOKEN": "a-secret-of-mine"})
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert {event["image"]["digest"] for event in job.events("Prepared")} == {images.id}
    lines = job.lines()
    assert lines["vh1/rank-0.out"][0] == "met 0@vh1 1@vh2 2@vh3"
    for rank, name in enumerate(cluster.names):
        *_, inside, place = lines[f"{name}/rank-{rank}.out"]
        assert inside == "the image yes a-secret-of-mine"
        assert place == "work " + ssh(cluster, name, "readlink /proc/self/ns/pid")
        saved = desk.folder(job.run) / "artifacts" / name / f"of-{rank}"
        assert saved.read_text() == f"{rank}@{name}"
    assert_nothing_left(cluster, job.run)


def test_how_a_rank_ends_is_told(desk: Desk, cluster: VirtualHosts) -> None:
    """Its exit code and last line; the other one ignores requests, and is killed."""
    desk.script("stubborn.py", STUBBORN)
    options = [*TWO, *budgets(grace=1)]
    job, ending = desk.run("stubborn.py", options=options)
    told = ending.result["failure"]
    assert (ending.code, told["node"], told["rank"]) == (1, "vh2", 1), ending.err
    assert "code 3" in told["cause"], told
    assert told["last_line"] == "giving up with 3"
    assert job.lines()["vh1/rank-0.out"] == ["asked"]
    assert_nothing_left(cluster, job.run)


def test_an_interrupt_lets_ranks_save(desk: Desk, cluster: VirtualHosts) -> None:
    """Each is asked once, through its engine, and what it saves is kept."""
    desk.script("save.py", SAVE)
    job = desk.start("save.py", options=TWO)
    job.wait_for_line("ready", 2)
    job.interrupt()
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert set(ending.states.values()) == {"stopped"}
    said = {file: lines[1:] for file, lines in job.lines().items() if "/rank-" in file}
    names = enumerate(("vh1", "vh2"))
    assert said == {f"{name}/rank-{rank}.out": ["asked 1"] for rank, name in names}
    assert_nothing_left(cluster, job.run)
    for rank, name in enumerate(("vh1", "vh2")):
        assert (desk.folder(job.run) / "artifacts" / name / f"saved-{rank}").exists()
        assert ssh(cluster, name, f"ls {kept_by(job, name)}") == f"saved-{rank}"


def test_an_engine_that_dies(desk: Desk, cluster: VirtualHosts) -> None:
    """With its monitor dead podman takes the container for a running one; it is removed as well."""
    job = desk.start("rank.py", "stay", options=TWO)
    job.wait_for_line("ready", 2)
    assert look(cluster, "vh2", text="/usr/bin/conmon", signal=signal.SIGKILL)
    ending = job.end()
    assert (ending.code, ending.result["failure"]["node"]) == (1, "vh2"), ending.err
    assert_nothing_left(cluster, job.run)


def test_a_coordinator_that_is_killed(desk: Desk, cluster: VirtualHosts) -> None:
    """`resume` finds the same containers running, and ends them with the run."""
    desk.script("wait.py", WAIT)
    job = desk.start("wait.py", options=TWO)
    job.wait_for_line("ready", 2)
    before = running(cluster)
    assert [name for name, found in before.items() if found] == ["vh1", "vh2"]
    job.abandon()
    again = desk.follow(job.run, "resume", job.run, "--json", "--follow")
    again.wait_for("Resumed")
    assert running(cluster) == before
    for name in ("vh1", "vh2"):
        ssh(cluster, name, f"touch {kept_by(job, name)}/go")
    ending = again.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert_nothing_left(cluster, job.run)


def test_a_lost_node(desk: Desk, cluster: VirtualHosts) -> None:
    """The other's container is ended by the run, that of the lost one by its own lease."""
    lease = ["--unattended", f"{budget(5):g}"]
    job = desk.start("rank.py", "stay", options=[*TWO, *lease, *budgets(silence=10)])
    job.wait_for_line("ready", 2)
    cluster.cut_ssh("vh2")
    ending = job.end()
    assert ending.code != 0
    assert ending.states["vh2"] == "lost", ending.states
    cluster.heal()
    wait_until("the lease ended the rank", lambda: not remains(cluster, job.run), 60)
    wait_until("its container is gone", lambda: not containers(cluster, "vh2"), 60)
    assert_nothing_left(cluster, job.run)


def test_the_fabric_is_tried_in_containers(desk: Desk, cluster: VirtualHosts) -> None:
    """By the torch that ranks will have. A link that is cut is named while containers try to meet,
    and they are gone before the run is over.
    """
    job, ending = desk.run("rank.py", "count", "1", probe=True)
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    (proven,) = job.events("FabricProbed")
    assert (proven["ok"], proven["cached"]) == (True, False), proven
    assert proven["busbw_gbps"] > 0
    assert_nothing_left(cluster, job.run)

    cluster.cut_data("vh2", "vh3")
    job, ending = desk.run("rank.py", "count", "1", options=["--no-cache"], probe=True)
    assert (ending.code, ending.result["failure"]["id"]) == (4, "OR-FABRIC-001"), ending.err
    assert "vh2 and vh3" in ending.result["failure"]["cause"]
    assert not job.events("Launched")
    assert_nothing_left(cluster, job.run)


def test_images_that_differ_are_refused(desk: Desk, cluster: VirtualHosts, images: Images) -> None:
    """Before a rank starts, with nodes and digests. What is there is not pulled."""
    for name, archive in {"vh1": "image.tar", "vh2": "other.tar"}.items():
        ssh(cluster, name, f"podman pull --quiet {images.archive(archive)}", 60)
    _, ending = desk.run("rank.py", "stay", options=[*TWO, "--container", IMAGE])
    told = ending.result["failure"]
    assert (ending.code, told["id"]) == (4, "OR-CONTAINER-003"), ending.err
    assert f"vh1: {images.id}; vh2: sha256:" in told["cause"]
