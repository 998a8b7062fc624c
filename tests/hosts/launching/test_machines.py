"""probe, doctor and explain over SSH: hosts that differ, and one that is gone."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.running import Desk
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]


def told(desk: Desk, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = desk.command(*words, "--cluster", str(desk.cluster), "--json")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_every_host_tells_what_it_has(desk: Desk, hosts: VirtualHosts) -> None:
    """Each its own name, address and network; twice, so that the agent is there the second time."""
    for _ in range(2):
        code, (*nodes, result) = told(desk, "probe")
        assert (code, result["status"]) == (0, "succeeded")
        facts = [node["facts"] for node in nodes]
        assert [found["hostname"] for found in facts] == list(hosts.names)
        assert len({found["route_address"] for found in facts}) == len(facts)
        assert len({found["host_id"] for found in facts}) == len(facts)
        assert all(abs(found["clock_offset_s"]) < 5 for found in facts)


def test_a_host_with_settings_of_its_own_is_found_and_explained(
    desk: Desk, hosts: VirtualHosts
) -> None:
    """A file of NCCL's in one home: doctor names the host, explain says what it does there."""
    odd = hosts.names[1]
    file = hosts.home(odd) / ".nccl.conf"
    file.write_text("NCCL_ALGO=Ring\n")
    try:
        code, (*cells, _) = told(desk, "doctor")
        wrong = {(c["node"], c["check"]) for c in cells if c["state"] in ("fail", "warn")}
        assert wrong == {(odd, "OR-DOC-ENV-001"), (odd, "OR-DOC-SAME-009")}
        assert code == 4
        _, (*nodes, result) = told(desk, "explain")
        left = {n["node"]: {v["name"]: v for v in n["left"]} for n in nodes}
        assert left[odd]["NCCL_ALGO"]["origin"] == "nccl.conf"
        assert all("NCCL_ALGO" not in left[name] for name in hosts.names if name != odd)
        assert any(w.startswith(f"{odd}: NCCL_ALGO=Ring") for w in result["warnings"])
    finally:
        file.unlink()


def test_a_cut_link_between_healthy_hosts_is_found(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """Both ends fail, in one line, within a bounded time; the third host has nothing to do with
    it.
    """
    one, other, third = hosts.names
    hosts.cut_data(one, third)
    at = time.monotonic()
    code, (*cells, result) = told(desk, "doctor")
    measured("doctor: a cut link", time.monotonic() - at, 25)
    wrong = {(c["node"], c["check"]) for c in cells if c["state"] not in ("ok", "none")}
    assert wrong == {(one, "OR-DOC-NET-001"), (third, "OR-DOC-NET-001")}
    assert (code, result["status"], result["failure"]["id"]) == (4, "unfit", "OR-DOC-NET-001")
    assert result["failure"]["cause"].startswith(f"{one} and {third} cannot open a TCP connection")
    assert result["failure"]["remedy"].endswith(f"--nodes '!{third}'")
    hosts.heal()
    code, (*cells, result) = told(desk, "doctor")
    links = {c["node"]: c["state"] for c in cells if c["check"] == "OR-DOC-NET-001"}
    assert (code, result["status"]) == (0, "healthy")
    assert links == dict.fromkeys((one, other, third), "ok")


def test_a_host_that_is_gone_is_the_only_fault(desk: Desk, hosts: VirtualHosts) -> None:
    gone = hosts.names[2]
    hosts.unplug(gone)
    try:
        code, (*cells, result) = told(desk, "doctor", "--connect-timeout", "3")
    finally:
        hosts.plug(gone)
    failed = {(c["node"], c["check"]) for c in cells if c["state"] == "fail"}
    assert (code, failed) == (4, {(gone, "OR-DOC-NODE-001")})
    assert not [c for c in cells if c["node"] == gone and c["state"] == "ok"]
    assert result["failure"]["node"] == gone
    assert shlex.quote(str(hosts.ssh_config)) in result["failure"]["remedy"]
