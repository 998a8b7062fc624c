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

from tests.hosts.processes import Here, remains
from tests.hosts.running import Desk, Job, open_desk, wait_until
from tests.time_limits import budget
from tests.workloads.conftest import WORKLOADS
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


def endpoints(lines: dict[str, list[str]]) -> list[str]:
    """Where engines answer, as the ranks' logs say."""
    return [
        line.rpartition(" at ")[2]
        for each in lines.values()
        for line in each
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


def serving(desk: Desk) -> tuple[Job, list[str]]:
    """A run whose four engines answer."""
    job = desk.start_workload(SERVE, *FAKED)
    wait_until("four endpoints", lambda: job.over or len(endpoints(job.lines())) == 4, 60)
    found = endpoints(job.lines())
    assert len(found) == 4, job.err
    return job, found


def test_engines_of_all_nodes_answer_until_the_run_is_stopped(desk: Desk) -> None:
    """A run that is stopped has not failed, and none of its servers is left."""
    job, found = serving(desk)
    assert len(set(found)) == 4
    assert all(map(answers, found))

    assert desk.command("stop", job.run).returncode == 0

    ending = job.end()
    assert ending.result["status"] == "stopped", ending.err
    assert ending.states == {"n1": "stopped", "n2": "stopped"}
    assert not any(map(answers, found))
    assert not remains(Here(), job.run)
    said = [line for each in job.lines().values() for line in each]
    assert said.count("serve: n1: stopped; no process of an engine is left") == 1
    files = sorted((desk.folder(job.run) / "artifacts").rglob("endpoints-n*.json"))
    written = [each["base_url"] for path in files for each in json.loads(path.read_text())]
    assert sorted(written) == sorted(found)


def test_an_engine_that_dies_fails_the_run_and_is_named(desk: Desk) -> None:
    job, found = serving(desk)
    port = found[0].rpartition(":")[2].partition("/")[0]
    (victim,) = map(int, servers_on(port))
    os.kill(victim, signal.SIGKILL)

    ending = job.end()

    assert (ending.code, ending.result["status"]) == (1, "failed")
    said = ending.result["failure"]["last_line"]
    assert re.match(r"serve: engine \d \(custom\) ended with signal SIGKILL .*engine-\d.log", said)
    assert not is_alive(victim)
    assert not any(map(answers, found))


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
