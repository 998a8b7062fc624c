"""A run from the command line to the verdict, on real hosts over real SSH."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import look, remains
from tests.hosts.running import Desk
from tests.time_limits import assert_within

pytestmark = pytest.mark.hosts

# What terminals and decoders dislike: NUL, invalid UTF-8, carriage returns, escapes.
NOISE = (
    b"\0\xff\xfe\xc3(\r 1%\r 99%\r\n\x1b[31mred\x1b[0m\x1b]0;title\x07\n" + bytes(range(256)) * 40
)
TRAINING = """
import argparse
import hashlib
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from parts.noise import NOISE

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
arguments = parser.parse_args()

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)

beside = Path(__file__).with_name(f"beside-{rank}.txt")
beside.write_text("written beside the script")
private = Path.home() / f"private-{os.environ['ORCHESTRATE_RUN_ID']}-{rank}"
private.write_text("written at home")
dist.barrier()
names = [path.name for path in beside.parent.glob("beside-*")]
names += [path.name.rpartition("-")[2] for path in private.parent.glob(private.name[:-1] + "*")]
output = Path(os.environ["ORCHESTRATE_OUTPUT_DIR"], "deep", "weights.bin")
output.parent.mkdir()
output.write_bytes(hashlib.sha256(b"%d" % rank).digest() * 100_000)
print(socket.gethostname(), f"rank {rank} of {size}", f"sum {total.item():g}", f"lr {arguments.lr}")
print("sees", *names, flush=True)
sys.stdout.buffer.write(NOISE)
dist.destroy_process_group()
"""


def test_a_third_party_script_on_three_hosts(desk: Desk, hosts: VirtualHosts) -> None:
    """Its own arguments, modules, collectives and files; every byte comes back, nothing is left."""
    desk.script("train.py", TRAINING)
    (desk.project / "parts").mkdir()
    desk.script("parts/noise.py", f"NOISE = {NOISE!r}\n")
    before = sorted(desk.project.rglob("*"))
    job, ending = desk.run("train.py", "--lr", "0.1", launcher="auto")
    result = ending.result
    assert (ending.code, result["status"]) == (0, "succeeded"), ending.err
    assert (result["launcher"], result["world_size"]) == ("direct", 3)
    assert ending.states == dict.fromkeys(hosts.names, "used")
    for rank, node in enumerate(hosts.names):
        said = f"{node} rank {rank} of 3 sum 6 lr 0.1\nsees beside-{rank}.txt {rank}\n"
        assert desk.log(job.run, node, f"rank-{rank}.out") == said.encode() + NOISE
        collected = desk.folder(job.run) / "artifacts" / node / "deep" / "weights.bin"
        assert collected.read_bytes() == hashlib.sha256(b"%d" % rank).digest() * 100_000
        assert (hosts.home(node) / f"private-{job.run}-{rank}").is_file()
    assert sorted(desk.project.rglob("*")) == before
    assert not list(Path.home().glob("private-*"))
    assert not remains(hosts, job.run)
    assert_within("run of a torch script on three hosts", sum(result["timings"].values()), 60)


def test_two_implementations_of_ssh_in_one_run(desk: Desk, hosts: VirtualHosts) -> None:
    """One node is reached by paramiko, the others by asyncssh; nobody can tell from the result."""
    text = hosts.inventory.read_text()
    mixed = text.replace('["vh[1-3]"]', '["vh[1-2]", {name: vh3, transport: paramiko}]')
    assert mixed != text
    desk.cluster = desk.project.parent / "mixed.yaml"
    desk.cluster.write_text(mixed)
    job, ending = desk.run("rank.py", "count", "100")
    assert (ending.code, ending.result["world_size"]) == (0, 3), ending.err
    expected = "".join(f"line {number} of rank 2\n" for number in range(100))
    assert desk.log(job.run, "vh3", "rank-2.out") == expected.encode()
    assert not remains(hosts, job.run)


def test_selected_nodes_several_ranks_and_variables(desk: Desk, hosts: VirtualHosts) -> None:
    """--nodes, --ranks-per-node and --env; a secret arrives and is written down nowhere."""
    secret = "a-secret-that-nobody-else-knows"
    desk.script(
        "show.py",
        "import hashlib, os\n"
        "names = 'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'GREETING'\n"
        "print(*(os.environ[name] for name in names))\n"
        "print(hashlib.sha256(os.environ['TOKEN'].encode()).hexdigest(), flush=True)\n"
        "import rank\n",
    )
    options = ["--nodes", "vh[1-3],!vh2", "--ranks-per-node", "2"]
    options += ["--env", "GREETING=good day", "--env", "TOKEN", "--verbose"]
    job = desk.start("show.py", "wait", options=options, env={"TOKEN": secret})
    job.wait_for_line("ready", 4)
    assert all(look(hosts, host, run=job.run) for host in ("vh1", "vh3"))
    assert not look(hosts, "vh2", run=job.run)
    assert not any(look(hosts, host, text=secret) for host in hosts.names)
    for name in hosts.names:
        (hosts.home(name) / f"go-{job.run}").touch()
    ending = job.end()
    assert (ending.code, ending.result["world_size"]) == (0, 4), ending.err
    assert ending.states == {"vh1": "used", "vh3": "used"}
    digest = hashlib.sha256(secret.encode()).hexdigest()
    for rank, node in enumerate(("vh1", "vh1", "vh3", "vh3")):
        lines = desk.log(job.run, node, f"rank-{rank}.out").decode().splitlines()
        assert lines[:2] == [f"{rank} {rank % 2} 4 2 good day", digest]
    kept = [desk.home, *(hosts.home(name) / ".orchestrate" for name in hosts.names)]
    files = [path for root in kept for path in root.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in ending.err + str(job.records)
    assert not remains(hosts, job.run)


WORKLOAD = (
    "name: w\nsummary: s\nentry: w.py\nparameters: {steps: {type: int, default: 1, help: h}}\n"
)


def connections(hosts: VirtualHosts) -> list[int]:
    """How many connections each host's sshd has told of, authenticated or not."""
    logs = [(hosts.directory / "hosts" / name / "sshd.log").read_text() for name in hosts.names]
    return [log.count("Accepted publickey") + log.count("[preauth]") for log in logs]


@pytest.mark.parametrize(
    "options,words",
    [
        (["--cluster", "locale"], ["unknown cluster 'locale'", "local"]),
        (["--cluster", "broken.yaml"], ["broken.yaml:3:5: the bracket [ is not closed"]),
        (["--cluster", "twice.yaml"], ["twice.yaml:2:", "name"]),
        (["--nodes", "vh[1-3],!vh[1-3]"], ["--nodes"]),
        (["--nodes", "vh9"], ["vh9"]),
        (["--workload", "w", "--set", "stesp=2"], ["stesp", "steps"]),
        (["--workload", "w", "--set", "steps=many"], ["steps", "many"]),
        (["--budget", "leese=3"], ["leese", "lease"]),
        (["--", "missing.py"], ["missing.py"]),
    ],
)
def test_bad_input_contacts_nobody(
    desk: Desk, hosts: VirtualHosts, options: list[str], words: list[str]
) -> None:
    """Exit 2 with the place and the nearest valid name; no connection, no trace of a run."""
    desk.script("broken.yaml", "name: broken\nnodes:\n  - [vh1\n")
    desk.script("twice.yaml", "name: one\nname: two\nnodes: [vh1]\n")
    workload = desk.project / "workloads" / "w"
    workload.mkdir(parents=True)
    (workload / "w.py").touch()
    (workload / "workload.yaml").write_text(WORKLOAD)
    before = connections(hosts)
    job = {"--", "--workload"} & set(options)
    cluster = [] if "--cluster" in options else ["--cluster", str(desk.cluster)]
    done = desk.command("run", *cluster, *options, *([] if job else ["--", "rank.py", "stay"]))
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert connections(hosts) == before
    assert not (desk.home / "runs").exists()
