"""The workload `serve` on this machine: the whole product, two nodes, real servers."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.run import node_address
from tests.hosts.processes import Here, remains
from tests.hosts.running import Desk, open_desk, wait_until
from tests.time_limits import budget
from tests.workloads.conftest import WORKLOADS, node_folder, succeed
from tests.workloads.test_serving_processes import FAKE, is_alive, servers_on

SERVE = WORKLOADS / "serve"
COMMAND = shlex.join(["{python}", "-I", "-S", str(FAKE), "--port", "{port}"])
FAKED = ("engine=custom", f"command={COMMAND}", "engines=2")
pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Two nodes that are this machine."""
    cluster = tmp_path / "pair.yaml"
    python, workdir = json.dumps(sys.executable), json.dumps(str(tmp_path / "node"))
    cluster.write_text(
        f"name: pair\n"
        f"defaults: {{transport: local, gpus: 0, python: {python}, workdir: {workdir}}}\n"
        f"nodes: ['n[1-2]']\n"
    )
    root = tmp_path / f"serve-{os.getpid()}"
    root.mkdir()
    with open_desk(root, cluster) as desk:
        yield desk


def said(desk: Desk, run: str) -> list[str]:
    """What the ranks wrote, as far as it is here."""
    files = (desk.folder(run) / "logs").glob("n*/rank-*.out")
    return [line for file in files for line in file.read_text().splitlines()]


def endpoints(desk: Desk, run: str) -> list[str]:
    """Where engines answer, as the ranks' logs say."""
    return [
        line.rpartition(" at ")[2]
        for line in said(desk, run)
        if line.startswith("serve: n") and " at http://" in line
    ]


def answers(url: str) -> bool:
    address = url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(address, timeout=budget(5))
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def test_engines_of_all_nodes_answer_until_the_run_is_stopped(desk: Desk) -> None:
    """In the background. A run that is stopped has not failed, and none of its servers is left."""
    run = desk.next_run
    sets = [word for setting in FAKED for word in ("--set", setting)]
    fixed = ("--cluster", str(desk.cluster), "--run-id", run, "--no-fabric-probe")
    done = desk.command("run", "--detach", *fixed, "--workload", str(SERVE), *sets)
    assert (done.returncode, done.stdout) == (0, f"{run}\n"), done.stderr
    try:
        wait_until("four endpoints", lambda: len(endpoints(desk, run)) == 4, 60)
        found = endpoints(desk, run)
        assert len(set(found)) == 4
        assert all(map(answers, found))
        told = desk.command("tunnel", run)
        assert told.returncode == 0, told.stderr
        lines = [line.rpartition(" ")[2] for line in told.stdout.splitlines()]
        assert sorted(lines) == sorted(found)
    finally:
        stopped = desk.command("stop", run)
    gone = desk.command("tunnel", run)
    assert (gone.returncode, gone.stderr) == (1, f"run {run} is over: no engine of it is left\n")

    assert stopped.returncode == 0, stopped.stderr
    result = json.loads((desk.folder(run) / "result.json").read_text())
    assert result["status"] == "stopped"
    assert [node["state"] for node in result["nodes"]] == ["stopped", "stopped"]
    assert not any(map(answers, found))
    assert not remains(Here(), run)
    assert said(desk, run).count("serve: n1: stopped; no process of an engine is left") == 1
    files = sorted((desk.folder(run) / "artifacts").rglob("endpoints-n*.json"))
    written = [each["base_url"] for path in files for each in json.loads(path.read_text())]
    assert sorted(written) == sorted(found)


def test_an_engine_that_dies_fails_the_run_and_is_named(desk: Desk) -> None:
    job = desk.start_workload(SERVE, *FAKED)
    wait_until("endpoints", lambda: job.over or len(endpoints(desk, job.run)) == 4, 60)
    found = endpoints(desk, job.run)
    assert len(found) == 4, job.err
    port = found[0].rpartition(":")[2].partition("/")[0]
    (victim,) = map(int, servers_on(port))
    os.kill(victim, signal.SIGKILL)

    ending = job.end()

    assert (ending.code, ending.result["status"]) == (1, "failed")
    failure = ending.result["failure"]
    assert failure["id"] == "OR-SERVE-005"
    pattern = r"engine \d \(custom\) ended with signal SIGKILL .*engine-\d.log"
    assert re.match(pattern, failure["cause"])
    assert "orchestrate diagnose" in failure["remedy"]
    assert not is_alive(victim)
    assert not any(map(answers, found))


def test_a_signal_while_engines_start_ends_them(tmp_path: Path) -> None:
    """The script alone, as it runs without orchestrate, too."""
    node = node_folder(tmp_path / "node")
    arguments = ("--engine=custom", f"--command={COMMAND} --never-healthy")
    rank = node.start(str(SERVE / "run.py"), *arguments, ORCHESTRATE_NODE="n1")
    log = node.path / "output" / "engine-0.log"
    try:
        wait_until("a server", lambda: log.exists() and "--never-healthy" in log.read_text())
        (port,) = re.findall(r'"--port", "(\d+)"', log.read_text())
        assert servers_on(port)
    finally:
        rank.terminate()
    assert succeed(rank).endswith("serve: n1: stopped; no process of an engine is left\n")
    assert not servers_on(port)


@pytest.mark.parametrize(
    "host, address",
    [("127.0.0.1", "127.0.0.1"), ("gpu01.lab", "gpu01.lab"), ("0.0.0.0", "127.0.0.5")],
)
def test_an_endpoint_has_an_address_that_others_can_use(host: str, address: str) -> None:
    """That of the node, where an engine listens on all of them."""
    facts = {"route_address": "127.0.0.5", "hostname": "gpu01"}
    assert node_address(host, facts) == address


@pytest.mark.parametrize(
    "setting, words",
    [
        ("engine=vlm", "vllm"),
        ("engine=vllm", "only the built-in engine has a model of its own"),
        ("command=x", "only engine=custom is started by a command"),
        ("port=70000", "65472"),
        ("tensor_parallel=2", "vllm and sglang spread a model"),
    ],
)
def test_settings_that_cannot_be_meant_exit_2(desk: Desk, setting: str, words: str) -> None:
    done = desk.command(
        "plan", "--cluster", str(desk.cluster), "--workload", str(SERVE), "--set", setting
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
