"""What must be true at the end of a run, whatever happened to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk, Ending, Job
from tests.hosts.surviving import release


def honest(desk: Desk, job: Job, ending: Ending) -> dict[str, Any]:
    """The first cause, of a run that failed: exit code, JSON, kept result, screen and report say
    the same.
    """
    assert (ending.code, ending.result["status"]) == (1, "failed"), ending.err
    folder = desk.folder(job.run)
    failure: dict[str, Any] = ending.result["failure"]
    kept = json.loads((folder / "result.json").read_text())
    assert (kept["exit_code"], kept["failure"]) == (ending.code, failure)
    assert failure["cause"][:40] in ending.err
    assert failure["remedy"]
    assert failure["cause"][:25] in (folder / "report.md").read_text()
    return failure


def clean(desk: Desk, hosts: VirtualHosts, job: Job, nodes: Sequence[str] = ()) -> None:
    """Nothing of the run is left on ``nodes`` (all), and every byte that its ranks wrote there is
    here.
    """
    nodes = nodes or hosts.names
    assert not remains(hosts, job.run, nodes)
    for node in nodes:
        logs = hosts.home(node) / f".orchestrate/node/runs/{job.run}/{node}/attempt-1/logs"
        for path in logs.iterdir():
            here = desk.folder(job.run) / "logs" / node / path.name
            assert path.read_bytes() == (here.read_bytes() if here.exists() else b""), path


def go_on(hosts: VirtualHosts, job: Job) -> Ending:
    """The end of a run of waiting ranks, once they need not wait any more: it must succeed."""
    release(hosts, job.run, hosts.names)
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert set(ending.states.values()) == {"used"}
    return ending
