"""An inference server on a host that only SSH reaches, used through the printed tunnel."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import urllib.request
from typing import Any

import pytest

from tests.hosts.running import Desk, wait_until
from tests.workloads.test_serve_runs import COMMAND, SERVE

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def models_at(url: str) -> Any:
    """None while nobody answers there."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def test_the_printed_tunnel_leads_to_the_engine(desk: Desk) -> None:
    settings = ("engine=custom", f"command={COMMAND}")
    job = desk.start_workload(SERVE, *settings, options=["--nodes", "vh2"])
    words = ("tunnel", job.run, "--port", str(free_port()), "--json")
    answers: list[str] = []

    def answered() -> bool:
        done = desk.command(*words)
        answers.append(done.stdout)
        return done.returncode == 0

    wait_until("an engine", lambda: job.over or answered(), 60)
    assert not job.over, job.err + f"{job.records[-1:]}"
    told = json.loads(answers[-1])
    assert told["node"] == "vh2", job.err
    assert models_at(told["base_url"]) is None
    with subprocess.Popen(shlex.split(told["command"])) as tunnel:
        try:
            wait_until("the tunnel", lambda: models_at(told["base_url"]) is not None, 30)
            assert models_at(told["base_url"])["data"] == [{"id": "fake"}]
        finally:
            tunnel.terminate()
    job.interrupt()
    assert job.end().result["status"] == "stopped"
