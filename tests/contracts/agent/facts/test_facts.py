"""What a probe finds, from real and recorded sources, and what the coordinator believes of it."""

from __future__ import annotations

import os
import socket
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.agent_client.channel import AgentChannel
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.facts import Facts, Hca
from orchestrator.node_agent.facts.host_facts import limited_memory, memory_table
from orchestrator.node_agent.facts.module_versions import find_modules, parse_modules
from orchestrator.node_agent.facts.network import find_interfaces, route_address
from orchestrator.node_agent.facts.rdma import find_hcas
from orchestrator.parsing.replies.probe_reply import parse_facts
from tests.time_limits import scaled

GIB = 1024**3
PORT = {"name": "mlx5_0", "port": 1, "state": "ACTIVE", "link_layer": "InfiniBand"}
MINIMAL: dict[str, Any] = {"hostname": "h", "route_address": "10.0.0.1", "wall_clock": 1000.0}


def parse(**facts: Any) -> Facts:
    return parse_facts("n1", {"facts": {**MINIMAL, **facts}}, asked=10.0, answered=12.0)


@pytest.mark.processes
async def test_this_machine(channel: AgentChannel) -> None:
    """A real probe passes the boundary and agrees with what Python says of this machine."""
    request = {
        "python": {"kind": "interpreter", "value": sys.executable},
        "modules": ["pydantic", "pydantic-core", "no_such_module"],
        "towards": "127.0.0.1",
    }
    asked = time.time()
    reply = await channel.request("probe", request, timeout_s=scaled(60))
    facts = parse_facts("n1", reply.fields, asked=asked, answered=time.time())

    import pydantic

    assert facts.hostname == os.uname().nodename
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.memory_bytes > GIB // 4
    assert facts.disk_free_bytes > 0
    assert abs(facts.clock_offset_s) < 1
    assert facts.modules["pydantic"] == pydantic.VERSION
    assert set(facts.modules) == {"python", "pydantic", "pydantic-core"}
    assert facts.kernel == os.uname().release
    assert facts.interpreter == sys.executable
    assert facts.boot_id
    assert facts.host_id.startswith(facts.boot_id)
    (loopback,) = (i for i in facts.interfaces if i.loopback)
    assert "127.0.0.1" in loopback.addresses
    assert facts.agent_python.count(".") == 2


def test_interfaces_are_those_of_the_kernel() -> None:
    """The names are what the socket library sees in this network namespace."""
    found = find_interfaces()

    assert [i["name"] for i in found] == [name for _, name in socket.if_nameindex()]


def test_adapters_are_read_from_sysfs(tmp_path: Path) -> None:
    """Two ports of one adapter and one of another, one of them down, and one without a rate."""
    ports = {
        "mlx5_0/ports/1": ("4: ACTIVE", "InfiniBand", "400 Gb/sec (4X NDR)"),
        "mlx5_0/ports/2": ("1: DOWN", "InfiniBand", "10 Gb/sec (4X SDR)"),
        "mlx5_bond_0/ports/1": ("4: ACTIVE", "Ethernet", ""),
    }
    for path, (state, layer, rate) in ports.items():
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "state").write_text(state + "\n")
        (tmp_path / path / "link_layer").write_text(layer + "\n")
        (tmp_path / path / "rate").write_text(rate + "\n")

    facts = parse(hcas=find_hcas(str(tmp_path)))

    infiniband = Hca(
        name="mlx5_0", port=1, state="ACTIVE", link_layer="InfiniBand", rate_gbit=400.0
    )
    assert facts.hcas[0] == infiniband
    assert [h.state for h in facts.hcas] == ["ACTIVE", "DOWN", "ACTIVE"]
    assert facts.hcas[2].rate_gbit == 0.0
    assert find_hcas(str(tmp_path / "absent")) == []


def test_memory_is_what_the_control_group_allows(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       32000000 kB\nMemFree: 1 kB\n")
    (tmp_path / "memory.max").write_text("max\n")

    total = memory_table(str(tmp_path))["MemTotal"]
    unlimited = limited_memory(total, str(tmp_path))
    (tmp_path / "memory.max").write_text(f"{GIB}\n")

    assert unlimited == 32000000 * 1024
    assert limited_memory(total, str(tmp_path)) == GIB


@pytest.mark.processes
def test_the_address_that_ssh_came_in_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH knows best; without it the routing table does; without a route it is loopback."""
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.7 50000 10.1.2.3 22")
    assert route_address(None) == "10.1.2.3"
    monkeypatch.delenv("SSH_CONNECTION")
    assert route_address("127.0.0.1") == "127.0.0.1"
    assert route_address("not an address") == "127.0.0.1"


@pytest.mark.processes
def test_modules_are_found_among_noise() -> None:
    """Start-up files may print; a broken interpreter is a note, not an error."""
    notes: list[str] = []

    assert parse_modules('hello\norchestrate-modules:{"a": "1", "b": null}\nbye') == {
        "a": "1",
        "b": "",
    }
    assert parse_modules("nothing") is None
    assert find_modules(["/no/such/python"], ["a"], notes) == {}
    assert find_modules(["false"], ["a"], notes) == {}
    assert len(notes) == 2


@pytest.mark.processes
def test_versions_are_those_of_the_packages_own_metadata() -> None:
    """Of modules under their package's name or another one, of packages without such a module, and
    of what belongs to no package.
    """
    own, others = ("pytest", "ruamel.yaml", "pytest-timeout"), ("_pytest", "attr")
    owner = metadata.packages_distributions()
    expected = {name: metadata.version(name) for name in own}
    expected |= {name: metadata.version(owner[name][0]) for name in others}

    found = find_modules([sys.executable], [*own, *others, "json", "no-such", "nope"], [])

    assert found == {**expected, "json": ""}


def test_the_clock_offset_leaves_out_the_time_that_the_probe_took() -> None:
    """Asked at 10, answered at 20, of which the node took 8: it read its clock at about 11."""
    reply = {"facts": {**MINIMAL, "wall_clock": 111.0}, "elapsed_s": 8.0}

    assert parse_facts("n1", reply, asked=10.0, answered=20.0).clock_offset_s == 100.0


@pytest.mark.parametrize(
    "lie",
    [
        {"hostname": "x" * 300},
        {"hostname": None},
        {"cpus": 0},
        {"cpus": True},
        {"cpus": "2"},
        {"cpus": 10**9},
        {"memory_bytes": -1},
        {"memory_bytes": 10**30},
        {"memlock_bytes": 1.5},
        {"gpus": [{}]},
        {"gpus": [{"index": -1, "name": "x"}]},
        {"gpus": [{"index": 0, "name": "x"}] * 300},
        {"gpus": {"0": "x"}},
        {"interfaces": [{"name": "", "up": True}]},
        {"interfaces": [{"name": "eth0", "up": "yes"}]},
        {"interfaces": [{"name": "eth0", "up": True, "addresses": ["$(id)"]}]},
        {"hcas": [{"name": "mlx5_0;id", "port": 1, "state": "", "link_layer": ""}]},
        {"hcas": [{"name": "m", "port": 1, "state": "", "link_layer": "", "rate_gbit": 1e9}]},
        {"route_address": "10.0.0.1; rm -rf /"},
        {"route_address": "host.example"},
        {"modules": {"torch": 2}},
        {"modules": [["torch", "2"]]},
        {"gpus": [{"index": 0, "name": "x", "pci": "0000:1a:00.0; id"}]},
        {"gpus": [{"index": 0, "name": "x", "throttle": "idle"}]},
        {"gpus": [{"index": 0, "name": "x", "nvlink": {"peers": {"switch": "18"}}}]},
        {"paths": [{"a": "gpu0", "b": "gpu1", "kind": "FAST"}]},
        {"xids": [{"code": "79", "pci": "", "count": 1}]},
        {"nccl_conf": {"NCCL_DEBUG": 1}},
        {"hcas": [{**PORT, "gids": [{"index": 0, "address": "$(id)"}]}]},
        {"hcas": [{**PORT, "errors": {"symbol_error": -1}}]},
        {"numa": ["0-3; id"]},
        {"wall_clock": "now"},
        {"wall_clock": -5.0},
    ],
)
def test_a_lying_node_is_refused(lie: dict[str, Any]) -> None:
    """Every field has a type and a bound; the error names the field and the node."""
    with pytest.raises(PreflightError) as refused:
        parse(**lie)

    assert refused.value.id == "OR-PROBE-001"
    assert refused.value.where == "n1"
    assert next(iter(lie)) in refused.value.what


def test_escapes_do_not_reach_a_terminal() -> None:
    facts = parse(hostname="a\x1b[2Jb\nc", driver="\u202edriver")

    assert facts.hostname == "a?[2Jb?c"
    assert facts.driver == "?driver"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(sorted(Facts.__dataclass_fields__)), JSON), JSON)
def test_any_answer_is_facts_or_a_refusal(facts: dict[str, Any], notes: Any) -> None:
    """Whatever JSON comes: no other exception, and only bounded, printable text gets in."""
    reply = {"facts": {**MINIMAL, **facts}, "notes": notes}
    try:
        found = parse_facts("n1", reply, asked=10.0, answered=12.0)
    except PreflightError:
        return

    assert found.hostname.isprintable()
    assert len(found.hostname) <= 256
