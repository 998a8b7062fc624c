"""From facts to variables: what is set, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model.facts import Facts, Gid, Hca
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import make_plan
from orchestrator.core.tuning.collective_adapters import choose_ports, hca_list
from orchestrator.core.tuning.gids import gid_treatment
from tests.core.tuned import HDR, STORAGE, here, pair, planned, reasons, settings
from tests.core.world import node_spec, request
from tests.fixtures.machines import (
    V1_IPV4,
    V2_IPV4,
    V2_LINK,
    Machine,
    Port,
    build,
    compute_ports,
    roce_ports,
)

# ---- InfiniBand, RoCE, sockets ------------------------------------------------------------------


def test_equal_active_ports_need_no_list(tmp_path: Path) -> None:
    """Nothing is set without a reason, and what is left alone has one."""
    made = pair(tmp_path, Machine(ports=compute_ports()))

    assert "NCCL_IB_HCA" not in settings(made, "n1")
    assert reasons(made, "n1")["NCCL_IB_HCA"].rule == "hca-all-alike"
    assert reasons(made, "n1")["NCCL_IB_GID_INDEX"].rule == "gid-infiniband"
    assert reasons(made, "n1")["NCCL_NET_GDR_LEVEL"].rule == "gdr-default"
    assert settings(made, "n1")["NCCL_SOCKET_IFNAME"] == "=eth0"


def test_storage_management_and_idle_ports_are_kept_out_by_exact_names(tmp_path: Path) -> None:
    ports = [
        *compute_ports(6),
        Port(name="mlx5_6", at=6, state="1: DOWN", physical="2: Polling"),
        Port(name="mlx5_7", at=7, rate=HDR),
        STORAGE,
        Port(name="mlx5_9", layer="Ethernet", rate="25 Gb/sec (1X EDR)", netdev="eth0"),
    ]
    made = pair(tmp_path, Machine(ports=ports))

    assert settings(made, "n1")["NCCL_IB_HCA"] == "=" + ",".join(f"mlx5_{i}" for i in range(6))
    variable = next(v for v in made.node("n1").env if v.name == "NCCL_IB_HCA")
    assert "mlx5_6:1 (down)" in variable.reason
    assert "mlx5_7:1 (200 of 400 Gb/s)" in variable.reason
    assert "mlx5_8:1 (storage: no GPU is nearer than NODE)" in variable.reason
    assert "mlx5_9:1 (Ethernet" in variable.reason
    assert "mlx5_0:1 ACTIVE InfiniBand 400 Gb/s" in variable.evidence
    assert variable.reference.endswith("env.html#nccl-ib-hca")


def test_lists_are_each_nodes_own(tmp_path: Path) -> None:
    """Names differ between hosts; what is right on one is wrong on the other."""
    first = Machine(ports=[*compute_ports(), STORAGE])
    second = Machine(name="n2", ports=[*compute_ports(name="ibp{}s0"), Port(name="mlx5_0")])
    made = pair(tmp_path, first, second)

    assert settings(made, "n1")["NCCL_IB_HCA"] == "=" + ",".join(f"mlx5_{i}" for i in range(8))
    assert settings(made, "n2")["NCCL_IB_HCA"] == "=" + ",".join(f"ibp{i}s0" for i in range(8))
    assert not any("differs between nodes" in warning for warning in made.warnings)


def test_a_port_is_named_where_its_adapter_has_another_that_is_kept_out(tmp_path: Path) -> None:
    ports = [*compute_ports(2), Port(name="mlx5_1", at=1, port=2, rate=HDR)]
    made = pair(tmp_path, Machine(gpus=2, ports=ports))

    assert settings(made, "n1")["NCCL_IB_HCA"] == "=mlx5_0,mlx5_1:1"


@pytest.mark.parametrize(
    "gids,name,value,rule",
    [
        ((V2_LINK, V1_IPV4, V2_IPV4), "NCCL_IB_GID_INDEX", "", "gid-roce-auto"),
        ((V2_LINK, "v2-ipv6"), "NCCL_IB_ADDR_FAMILY", "AF_INET6", "gid-roce-ipv6"),
        ((V1_IPV4,), "NCCL_IB_ROCE_VERSION_NUM", "1", "gid-roce-v1"),
        ((V2_LINK,), "NCCL_IB_GID_INDEX", "", "gid-roce-mixed"),
    ],
)
def test_roce_is_steered_by_family_and_version_and_never_by_an_index(
    gids: tuple[str, ...], name: str, value: str, rule: str, tmp_path: Path
) -> None:
    made = pair(tmp_path, Machine(ports=roce_ports(gids=gids)))

    found = {v.name: v for v in (*made.node("n1").env, *made.node("n1").left)}
    assert (found[name].value, found[name].rule) == (value, rule)
    assert "NCCL_IB_GID_INDEX" not in settings(made, "n1")
    assert "RoCE" in found[name].evidence


def test_a_roce_port_that_ssh_comes_in_by_is_for_management(tmp_path: Path) -> None:
    ports = [*roce_ports(4), replace(roce_ports(5)[4], netdev="eth0", name="mlx5_4")]
    made = pair(tmp_path, Machine(gpus=4, ports=ports))

    assert settings(made, "n1")["NCCL_IB_HCA"] == "=mlx5_0,mlx5_1,mlx5_2,mlx5_3"


def test_a_host_without_adapters_gets_its_interface_and_nothing_of_infiniband(
    tmp_path: Path,
) -> None:
    made = pair(tmp_path, Machine(gpus=2, switches=0))

    names = settings(made, "n1")
    assert names["NCCL_SOCKET_IFNAME"] == "=eth0"
    assert not [name for name in names if name.startswith(("NCCL_IB", "NCCL_NET"))]
    assert reasons(made, "n1")["NCCL_IB_HCA"].rule == "no-adapters"


def test_no_active_port_sets_nothing_and_says_so(tmp_path: Path) -> None:
    down = compute_ports(2, state="1: DOWN", physical="2: Polling")
    made = pair(tmp_path, Machine(gpus=2, ports=down))

    assert reasons(made, "n1")["NCCL_IB_HCA"].rule == "hca-none-active"


def test_one_node_needs_nothing_of_the_fabric(tmp_path: Path) -> None:
    made = planned(build(tmp_path, Machine(ports=[*compute_ports(), STORAGE])))
    assert not [n for n in settings(made, "n1") if n.startswith("NCCL_IB")]


# ---- direct access ------------------------------------------------------------------------------


def test_direct_access_goes_farther_only_with_evidence(tmp_path: Path) -> None:
    """The host bridge is the nearest there is, nothing translates, and the module is loaded."""
    base = build(tmp_path, Machine(gpus=2, ports=compute_ports(2)))
    paths = tuple(replace(p, kind="PHB") if p.b.startswith("mlx") else p for p in base.paths)
    bridge = replace(base, paths=paths)
    other = replace(bridge, node="n2")

    def level(facts: Facts) -> tuple[str, str]:
        made = planned(facts, other)
        left = reasons(made, "n1").get("NCCL_NET_GDR_LEVEL")
        return settings(made, "n1").get("NCCL_NET_GDR_LEVEL", ""), left.rule if left else ""

    assert level(bridge) == ("PHB", "")
    assert level(replace(bridge, virtual_machine="KVM")) == ("", "gdr-virtual")
    assert level(replace(bridge, virtual_machine=None)) == ("", "gdr-virtual")
    assert level(replace(bridge, peermem="")) == ("", "gdr-absent")
    assert level(replace(bridge, peermem=None)) == ("", "gdr-unseen")
    assert level(replace(bridge, paths=())) == ("", "gdr-unseen")
    translated = replace(bridge, p2p=replace(bridge.p2p, iommu="DMA"))
    assert level(translated) == ("", "gdr-far")


# ---- processors ---------------------------------------------------------------------------------


def test_ranks_run_beside_their_gpus(tmp_path: Path) -> None:
    """Four GPUs on each of two NUMA nodes; not where users choose the devices themselves."""
    facts = build(tmp_path, Machine())
    base = request("n1")
    chosen = replace(base, env={"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"})
    own = replace(base, env={"ORCHESTRATE_RANK_CPUS": "0"})

    assert settings(planned(facts), "n1")["ORCHESTRATE_RANK_CPUS"] == ";".join(
        ["0-31"] * 4 + ["32-63"] * 4
    )
    assert "ORCHESTRATE_RANK_CPUS" not in settings(planned(facts, asked=chosen), "n1")
    assert settings(planned(facts, asked=own), "n1")["ORCHESTRATE_RANK_CPUS"] == "0"
    one_socket = replace(facts, numa=("0-63",))
    assert "ORCHESTRATE_RANK_CPUS" not in settings(planned(one_socket), "n1")
    manual = replace(base, launcher="manual")
    assert "ORCHESTRATE_RANK_CPUS" not in settings(planned(facts, asked=manual), "n1")


# ---- any facts ----------------------------------------------------------------------------------

PORTS = st.builds(
    Hca,
    name=st.sampled_from([f"mlx5_{i}" for i in range(12)]),
    port=st.integers(1, 2),
    state=st.sampled_from(["ACTIVE", "DOWN", "INIT", ""]),
    link_layer=st.sampled_from(["InfiniBand", "Ethernet", ""]),
    rate_gbit=st.sampled_from([0.0, 25.0, 200.0, 400.0]),
    netdev=st.sampled_from(["", "eth0"]),
    gids=st.lists(
        st.builds(
            Gid,
            index=st.integers(0, 7),
            address=st.sampled_from(["fe80::1", "::ffff:10.0.0.1", "fd00::1", "nonsense"]),
            kind=st.sampled_from(["", "RoCE v2", "IB/RoCE v1"]),
        ),
        max_size=3,
    ).map(tuple),
)


@given(st.lists(PORTS, max_size=10, unique_by=lambda hca: (hca.name, hca.port)))
def test_any_adapters_lead_to_exact_names_of_active_ports_or_to_nothing(hcas: list[Hca]) -> None:
    """Whatever a node has: every port is either chosen or kept out with a reason, and a list names
    exactly the chosen ones.
    """
    facts = replace(here(), hcas=tuple(hcas), virtual_machine="")
    choice = choose_ports(facts)
    variable = hca_list(choice)

    every = [*choice.ports, *(port for port, _ in choice.kept_out)]
    assert sorted((p.name, p.port) for p in every) == sorted((p.name, p.port) for p in hcas)
    assert all(port.active for port in choice.ports)
    assert bool(choice.ports) == any(hca.active for hca in hcas)
    if variable.value:
        value = str(variable.value)
        assert value.startswith("=")
        assert choice.kept_out
        taken = {name.partition(":")[0] for name in value[1:].split(",")}
        assert taken == {port.name for port in choice.ports}
    if choice.ports:
        assert (
            gid_treatment(choice.ports).name != "NCCL_IB_GID_INDEX"
            or not gid_treatment(choice.ports).value
        )


def test_an_offline_plan_knows_nothing_of_adapters() -> None:
    from orchestrator.core.model.inventory import GpuSpec
    from orchestrator.core.model.workload import Job, Workload
    from orchestrator.core.planning.planning import assumed_finding

    specs = tuple(node_spec(name, GpuSpec(count=8, type="H100")) for name in ("a", "b"))
    cluster = Cluster(name="c", source="c.yaml", nodes=specs)
    workload = Workload(name="w", source="-", folder="/w", entry="w.py")
    asked = RunRequest(run_id="r", cluster=cluster, job=Job(workload=workload), entry="w/w.py")
    made = make_plan(asked, {spec.name: assumed_finding(spec) for spec in specs}, {})
    assert isinstance(made, Plan)
    assert reasons(made, "a")["NCCL_IB_HCA"].rule == "not-asked"
