"""Pods of exported jobs, run as the kubelet would run them: real processes on this machine.

What a cluster adds (images, scheduling, names of hosts) is not here; the command, the variables and
the mounted files are those of the manifests.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.kubernetes.exported import mount_pod, pod_specs, read_folder
from tests.time_limits import communicate, scaled

pytestmark = pytest.mark.processes
ENDS_WITHIN_S = 60.0
# Meets by TCP where it is told to, as ranks do: each sends its rank, the first adds them up.
MEETING = """
import os, socket, sys
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server(place) as server:
        server.settimeout(30)
        ranks = [int(server.accept()[0].recv(8)) for _ in range(size - 1)]
    print("sum", sum(ranks), "by", os.environ["GLOO_SOCKET_IFNAME"], flush=True)
else:
    while True:
        try:
            socket.create_connection(place, 30).sendall(b"%d" % rank)
            break
        except ConnectionRefusedError:
            pass
"""
Export = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Exports a script of one's own for ``nodes`` nodes; the objects."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    project.mkdir()

    def run(script: str, *options: str, nodes: int = 1) -> dict[str, dict[str, Any]]:
        cluster = tmp_path / "lab.yaml"
        cluster.write_text(f"name: lab\ndefaults: {{gpus: 0}}\nnodes: ['n[1-{nodes}]']\n")
        (project / "job.py").write_text(script)
        where = ["--cluster", str(cluster), "--workdir", str(project), "--out", "manifests"]
        pod = ["--image", "none", "--python", sys.executable, "--launcher", "direct"]
        command = ["export", "kubernetes", *where, *pod, *options, "--", "project/job.py"]
        assert main(command) == 0
        return read_folder(tmp_path / "manifests")

    return run


class Pods:
    """Starts pods of exported jobs; what still runs at the end of the test is killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, objects: dict[str, dict[str, Any]], rank: int = 0, **environment: str
    ) -> subprocess.Popen[str]:
        """The pod of node rank ``rank``; ``environment``: what its controller adds."""
        claims = {"kept": self.root / "kept", "code": self.root / "manifests" / "code"}
        images = {"/orchestrate/code": self.root / "manifests" / "code"}
        place = self.root / f"pod-{rank}"
        pod = mount_pod(pod_specs(objects)[rank], objects, place, claims, images)
        process = subprocess.Popen(
            pod.argv,
            env={"PATH": os.environ["PATH"], **pod.env, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, objects: dict[str, dict[str, Any]]) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of the first pod."""
        process = self.start(objects)
        out, err = communicate(process, ENDS_WITHIN_S)
        return process.returncode, out, err


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    made = Pods(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=scaled(10))
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if _belongs(pid, tmp_path)]


def _belongs(process: Path, root: Path) -> bool:
    """Whether it is a rank or a supervisor of a pod below ``root``."""
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and f"={root}/".encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def attempt_of(root: Path, number: int = 1, node: str = "n1") -> Path:
    """Where a pod keeps an attempt."""
    (found,) = root.glob(f"node-*/node/runs/job/{node}/attempt-{number}")
    return found


def test_ranks_run_with_logs_markers_and_outputs_as_over_ssh(export: Export, pods: Pods) -> None:
    """Lines on standard output by rank; the attempt's folder as an agent keeps it, on the claim."""
    script = (
        "import os\n"
        "open(os.environ['ORCHESTRATE_OUTPUT_DIR'] + '/out-' + os.environ['RANK'], 'w').close()\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n"
        "print(os.environ['MINE'], end='')\n"
    )
    objects = export(script, "--ranks-per-node", "2", "--results", "kept", "--env", "MINE=$(x)")

    code, out, err = pods.run(objects)

    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [
        "[rank0]: $(x)",
        "[rank0]: rank 0 of 2",
        "[rank1]: $(x)",
        "[rank1]: rank 1 of 2",
    ]
    attempt = attempt_of(pods.root / "kept" / "job")
    assert {path.name for path in (attempt / "output").iterdir()} == {"out-0", "out-1"}
    assert (attempt / "logs" / "rank-1.out").read_text() == "rank 1 of 2\n$(x)"
    records = [json.loads(line) for line in (attempt / "events.jsonl").read_text().splitlines()]
    assert records[-1]["event"] == "concluded"
    assert records[-1]["clean"] is True


def test_final_figures_are_shown(export: Export, pods: Pods) -> None:
    """As a rank reports them through the kit; points of a series are in its report alone."""
    script = (
        "import orchestrate_kit as kit\n"
        "kit.metric('loss', 2.5, 'nats', step=1)\n"
        "kit.metric('loss', 1.25, 'nats')\n"
    )

    code, out, _ = pods.run(export(script))

    assert (code, out) == (0, "[rank0]: loss = 1.25 nats\n")


def test_the_first_rank_that_fails_names_the_cause(export: Export, pods: Pods) -> None:
    """Its code is the pod's, its last line is the reason, and the others end at once."""
    script = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    sys.exit('no such file: tokens.bin')\n"
        "time.sleep(600)\n"
    )

    code, _, err = pods.run(export(script, "--ranks-per-node", "2"))

    assert code == 1
    assert err == "orchestrate: rank 1 ended with exit code 1: no such file: tokens.bin\n"


def test_a_rank_that_is_killed_ends_the_pod_as_a_shell_would_say(
    export: Export, pods: Pods
) -> None:
    code, _, err = pods.run(export("import os\nos.kill(os.getpid(), 9)\n"))

    assert code == 128 + signal.SIGKILL
    assert err == "orchestrate: rank 0 was killed by SIGKILL\n"


def test_kubernetes_may_end_a_pod(export: Export, pods: Pods) -> None:
    """Ranks get their request to end and their grace, and nothing of them is left."""
    script = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: sys.exit(print('saved', flush=True)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = pods.start(export(script))
    assert process.stdout is not None
    assert process.stdout.readline() == "[rank0]: ready\n"

    process.terminate()
    out, err = communicate(process, ENDS_WITHIN_S)

    assert (process.returncode, out) == (143, "[rank0]: saved\n")
    assert err == "orchestrate: the ranks were stopped\n"


def test_a_pod_that_waits_for_its_leader_can_be_ended(export: Export, pods: Pods) -> None:
    """It says whom it waits for, and does not wait for its grace to pass."""
    objects = export("print('never')\n", "--serving", "8000", nodes=2)
    process = pods.start(objects, 1, LWS_LEADER_ADDRESS="not..yet")
    assert process.stderr is not None
    waiting = "orchestrate: waiting for not..yet, where the ranks meet\n"
    assert process.stderr.readline() == waiting

    process.terminate()
    out, err = communicate(process, ENDS_WITHIN_S)

    assert (process.returncode, out) == (143, "")
    assert err == "orchestrate: stopped before its ranks were started\n"


def test_a_leader_that_never_comes_is_named(export: Export, pods: Pods) -> None:
    objects = export("print('never')\n", "--serving", "8000", "--budget", "prepare=1", nodes=2)

    process = pods.start(objects, 1, LWS_LEADER_ADDRESS="not..yet")
    _, err = communicate(process, ENDS_WITHIN_S)
    assert process.returncode == 4
    assert "not..yet, where the ranks meet, has no address after 1 s" in err

    _, err = communicate(pods.start(objects, 0), ENDS_WITHIN_S)
    assert "LWS_LEADER_ADDRESS is not set: this is no pod of a group" in err


def test_the_time_of_the_ranks_is_limited(export: Export, pods: Pods) -> None:
    code, _, _ = pods.run(export("import time\ntime.sleep(600)\n", "--timeout", "1"))

    assert code == 124


def test_pods_meet_at_their_leader(export: Export, pods: Pods) -> None:
    """Two pods of a LeaderWorkerSet, each with its part of one world."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    objects = export(
        MEETING, "--serving", "8000", "--rendezvous-port", port, "--ranks-per-node", "2", nodes=2
    )
    leader = {"LWS_LEADER_ADDRESS": "127.0.0.1"}

    both = [pods.start(objects, rank, **leader) for rank in (0, 1)]
    ended = [communicate(process, ENDS_WITHIN_S) for process in both]

    assert [process.returncode for process in both] == [0, 0], ended
    assert ended[0][0] == "[rank0]: sum 6 by lo\n"


def test_a_second_attempt_keeps_the_first(export: Export, pods: Pods) -> None:
    """On a claim; checkpoints are those of the run."""
    script = (
        "import os\n"
        "seen = os.environ['ORCHESTRATE_CHECKPOINT_DIR'] + '/step'\n"
        "print(os.environ['ORCHESTRATE_ATTEMPT'], os.path.exists(seen))\n"
        "open(seen, 'w').close()\n"
    )
    objects = export(script, "--results", "kept")

    assert [pods.run(objects)[1] for _ in range(2)] == ["[rank0]: 1 False\n", "[rank0]: 2 True\n"]
    assert attempt_of(pods.root / "kept" / "job", 1).is_dir()


@pytest.mark.parametrize("place", ["image", "claim:code"])
def test_code_comes_from_an_image_or_a_claim(place: str, export: Export, pods: Pods) -> None:
    code, out, _ = pods.run(export("print('here')\n", "--code", place))

    assert (code, out) == (0, "[rank0]: here\n")


def test_damaged_code_is_not_run(export: Export, pods: Pods) -> None:
    """Each content has to have its digest, wherever it comes from."""
    objects = export("print('here')\n", "--code", "image")
    (part,) = (pods.root / "manifests" / "code").glob("*/part-*")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)

    code, out, err = pods.run(objects)

    assert (code, out) == (4, "")
    assert "orchestrate: " in err


def test_an_image_without_what_the_ranks_import_is_named(
    tmp_path: Path, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "needy"
    folder.mkdir()
    (folder / "workload.yaml").write_text(
        "name: needy\nsummary: Needs a module\nentry: run.py\nrequires: {modules: [no_such_one]}\n"
    )
    (folder / "run.py").write_text("print('never')\n")
    cluster = tmp_path / "lab.yaml"
    cluster.write_text("name: lab\ndefaults: {gpus: 0}\nnodes: [n1]\n")
    out = tmp_path / "manifests"
    pod = ["--image", "none", "--python", sys.executable, "--out", str(out)]
    assert main(["export", "kubernetes", "-C", str(cluster), "-W", str(folder), *pod]) == 0

    code, shown, err = pods.run(read_folder(out))

    assert (code, shown) == (4, "")
    assert "of this image lacks no_such_one [OR-AGENT-ABSENT]" in err


def test_a_pod_that_cannot_begin_says_why(export: Export, pods: Pods) -> None:
    """In one line, without a traceback."""
    objects = export("print('never')\n", "--results", "kept")
    (pods.root / "kept").mkdir()
    (pods.root / "kept" / "job").mkdir()
    (pods.root / "kept" / "job" / "node-0").write_text("a file in its place")

    code, out, err = pods.run(objects)

    assert (code, out, err.count("\n")) == (4, "", 1)
    assert err.startswith("orchestrate: ")
    assert "node-0" in err
