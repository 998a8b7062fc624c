"""Every planted fault is found, and nothing else; what was not measured is never well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.doctor.check_model import Level, Mesh, State, Subject
from orchestrator.core.doctor.checkup import Examination, readings_in, run_checks
from orchestrator.core.doctor.rules import CHECKS
from orchestrator.core.fabric.connection_matrix import explain_failures
from orchestrator.core.model.facts import Facts, Xid
from orchestrator.core.model.inventory import GpuSpec
from orchestrator.view.tables.doctor_tables import check_matrix, finding_lines, verdict_line
from tests.core.world import node_spec
from tests.fixtures.machines import (
    V1_IPV4,
    V2_LINK,
    Machine,
    Port,
    build,
    compute_ports,
    roce_ports,
)

STORAGE = [Port(name="mlx5_8", rate="200 Gb/sec (4X HDR)", board="MT_0000000223")]
UNUSED = [
    Port(name="mlx5_8", port=2, state="1: DOWN", physical="3: Disabled", board="MT_0000000223")
]


def healthy(name: str, **how: Any) -> Machine:
    """An InfiniBand node as it should be, with a storage adapter that has an unused second port."""
    ports = how.pop("ports", [*compute_ports(), *STORAGE, *UNUSED])
    return Machine(name=name, ports=ports, **how)


def checked(*found: Facts, gpus: int | None = 8, level: Level = Level.QUICK) -> Examination:
    spec = GpuSpec(count=gpus)
    return run_checks([Subject(spec=node_spec(f.node, spec), facts=f) for f in found], level)


def faults(examined: Examination) -> set[tuple[str, str]]:
    bad = readings_in(examined, State.FAIL, State.WARN)
    return {(reading.node, reading.check) for reading in bad}


def ports_with(at: int, **how: Any) -> list[Port]:
    ports = [*compute_ports(), *STORAGE, *UNUSED]
    ports[at] = replace(ports[at], **how)
    return ports


def gpu(**how: Any) -> dict[str, Any]:
    return {"gpu": {3: how}}


ECC: dict[str, Any] = {"enabled": True, "corrected": 0, "uncorrected": 2, "uncorrected_ever": 2}
ROWS: dict[str, Any] = {"corrected": 0, "uncorrected": 1, "pending": True, "failed": False}
PCIE = {"gen": 5, "gen_max": 5, "width": 8, "width_max": 16}
SLOW_PCIE = {"gen": 3, "gen_max": 5, "width": 16, "width_max": 16}
LINKS: dict[str, Any] = {
    "total": 18,
    "active": 17,
    "mbyte_s": 26562,
    "errors": 0,
    "peers": {"switch": 17},
}
XID = [{"code": 79, "pci": "0000:33:00", "count": 1, "last": "2026-11-21T10:00:00", "in_a_day": 1}]
REPEATED = [{**XID[0], "count": 7, "in_a_day": 5}]
ONE_GPUS_31 = [{"code": 31, "pci": "0000:33:00", "count": 5, "in_a_day": 5}]
OLD_TORCH = {"torch": "2.9.0", "nvidia-nccl-cu12": "2.28.9"}
OLD_NCCL = {"torch": "2.11.0", "nvidia-nccl-cu12": "2.27.3"}
SPOILT = {"NCCL_P2P_DISABLE": "1"}

# What is planted in the second of three nodes -> the checks that must find it there.
PLANTED: dict[str, tuple[Mapping[str, Any], set[str]]] = {
    "port down": ({"ports": ports_with(2, state="1: DOWN", physical="2: Polling")}, {"IB-001"}),
    "no subnet manager": ({"ports": ports_with(2, state="2: INIT")}, {"IB-001"}),
    "wrong rate": ({"ports": ports_with(2, rate="200 Gb/sec (4X HDR)")}, {"IB-002"}),
    "port errors": ({"ports": ports_with(2, errors={"symbol_error": 9})}, {"IB-003"}),
    "adapter gone": ({"ports": [*compute_ports(7), *STORAGE, *UNUSED]}, {"IB-006", "SAME-007"}),
    "other names": (
        {"ports": [*compute_ports(name="ibp{}"), *STORAGE, *UNUSED]},
        {"SAME-007"},
    ),
    "firmware": ({"ports": ports_with(2, firmware="28.35.1000")}, {"SAME-008"}),
    "no peermem": ({"peermem": False}, {"IB-005"}),
    "ACS": ({"acs": 0x1D}, {"GPU-014"}),
    "IOMMU": ({"iommu": "DMA-FQ"}, {"GPU-015"}),
    "fabric manager": ({"manager": False}, {"GPU-012"}),
    "GPU gone": (
        {"gpus": 7, "ports": [*compute_ports(), *STORAGE, *UNUSED]},
        {"GPU-001", "SAME-001"},
    ),
    "GPU in use": (
        gpu(processes=[{"pid": 42, "memory_bytes": 1}]),
        {"GPU-002"},
    ),
    "ECC": (gpu(ecc=ECC), {"GPU-003"}),
    "row pending": (gpu(rows=ROWS), {"GPU-004"}),
    "Xid": ({"answer": {"xids": XID}}, {"GPU-005"}),
    "throttled": (gpu(throttle=["hw_thermal"]), {"GPU-006"}),
    "hot": (gpu(temperature_c=92), {"GPU-007"}),
    "power limit": (gpu(power_limit_w=500.0), {"GPU-008"}),
    "PCIe lanes": (gpu(pcie=PCIE), {"GPU-009"}),
    "PCIe generation": (gpu(pcie=SLOW_PCIE, throttle=[]), {"GPU-009"}),
    "NVLink down": (gpu(nvlink=LINKS), {"GPU-010"}),
    "fabric": (gpu(fabric="in_progress"), {"GPU-011"}),
    "unseen on the bus": ({"unseen": 1}, {"GPU-016"}),
    "memory left over": (gpu(memory_used_bytes=3 << 30), {"GPU-017"}),
    "hot memory": (gpu(memory_temperature_c=95), {"GPU-018"}),
    "no margin": (gpu(margin_c=0), {"GPU-019"}),
    "the same Xid": ({"answer": {"xids": REPEATED}}, {"GPU-005", "GPU-020"}),
    "a program's Xid of one GPU": ({"answer": {"xids": ONE_GPUS_31}}, {"GPU-020"}),
    "VBIOS": (gpu(vbios="96.00.30.00.01"), {"SAME-011"}),
    "GSP": (gpu(gsp="550.54.15"), {"SAME-012"}),
    "InfoROM": (gpu(inforom="G520.0200.00.01"), {"SAME-013"}),
    "a module of memory": ({"answer": {"memory_bytes": 960 << 30}}, {"SAME-014"}),
    "governor": ({"governor": "powersave"}, {"HOST-005"}),
    "clock source": ({"clock": "hpet"}, {"HOST-006"}),
    "stuck": ({"processes": {77: ("D", 1)}}, {"HOST-007"}),
    "dead, with threads": ({"processes": {77: ("Z", 3)}}, {"HOST-007"}),
    "zombies": ({"processes": dict.fromkeys(range(100, 200), ("Z", 1))}, {"HOST-008"}),
    "no uverbs": ({"ports": ports_with(2, uverbs=False)}, {"IB-007"}),
    "no umad": ({"ports": ports_with(2, umad=False)}, {"IB-007"}),
    "persistence": (gpu(persistence=False), {"GPU-013"}),
    "MIG": (gpu(mig=True), {"GPU-013"}),
    "clock": ({"answer": {"wall_clock": 15.0}}, {"HOST-001"}),
    "memlock": ({"answer": {"memlock_bytes": 65536}}, {"HOST-002", "SAME-006"}),
    "docker's shm": ({"answer": {"shm_bytes": 64 << 20}}, {"HOST-003"}),
    "disk": ({"answer": {"disk_free_bytes": 1 << 20}}, {"HOST-004"}),
    "read-only disk": ({"answer": {"writable": False}}, {"HOST-004"}),
    "driver": ({"answer": {"driver": "550.54.15"}}, {"SAME-002", "GPU-012"}),
    "torch": ({"answer": {"modules": OLD_TORCH}}, {"SAME-003"}),
    "NCCL": ({"answer": {"modules": OLD_NCCL}}, {"SAME-004"}),
    "no torch": ({"answer": {"modules": {}}}, {"SAME-003", "SAME-004"}),
    "kernel": ({"answer": {"kernel": "6.8.0"}}, {"SAME-005"}),
    "python": ({"answer": {"agent_python": "3.9.2"}}, {"SAME-010"}),
    "nccl.conf": ({"answer": {"nccl_conf": SPOILT}}, {"ENV-001", "SAME-009"}),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facts, Facts]:
    root = tmp_path_factory.mktemp("good")
    return build(root, healthy("n1")), build(root, healthy("n3"))


def test_healthy_machines_are_healthy(good: tuple[Facts, Facts]) -> None:
    examined = checked(*good)
    assert faults(examined) == set()
    assert examined.status == "healthy", list(finding_lines(examined))


@pytest.mark.parametrize("fault", PLANTED)
def test_each_planted_fault_is_found_and_nothing_else(
    fault: str, good: tuple[Facts, Facts], tmp_path: Path
) -> None:
    how, expected = PLANTED[fault]
    examined = checked(good[0], build(tmp_path, healthy("n2", **how)), good[1])
    assert faults(examined) == {("n2", f"OR-DOC-{check}") for check in expected}
    bad = list(readings_in(examined, State.FAIL, State.WARN))
    assert all(reading.what and reading.remedy and "\n" not in reading.remedy for reading in bad)


def test_one_node_alone_is_judged_by_its_own_kind(tmp_path: Path) -> None:
    """Seven of eight equal ports are up: the eighth is a fault."""
    down = ports_with(5, state="1: DOWN", physical="2: Polling")
    (fault,) = faults(checked(build(tmp_path, healthy("n1", ports=down))))
    assert fault == ("n1", "OR-DOC-IB-001")


@pytest.mark.parametrize(
    "gids,expected",
    [
        ((V2_LINK, V1_IPV4, "v2-ipv4"), set()),
        ((V2_LINK, "v2-ipv6"), set()),
        ((V2_LINK,), {"OR-DOC-IB-004"}),
        ((V1_IPV4,), {"OR-DOC-IB-004"}),
        ((), {"OR-DOC-IB-004"}),
    ],
)
def test_roce_ports_need_an_address_that_can_be_routed(
    gids: tuple[str, ...], expected: set[str], tmp_path: Path
) -> None:
    facts = build(tmp_path, Machine(ports=roce_ports(gids=gids)))
    assert {check for _, check in faults(checked(facts))} == expected


def test_a_node_that_does_not_answer_fails_and_nothing_of_it_is_well() -> None:
    subject = Subject(spec=node_spec("gone"), error="connection refused")
    examined = run_checks([subject], Level.QUICK)
    assert faults(examined) == {("gone", "OR-DOC-NODE-001")}
    assert examined.count(State.OK) == 0
    assert examined.count(State.UNKNOWN) == sum(c.level is Level.QUICK for c in CHECKS) - 1
    told = list(finding_lines(examined))
    assert len([line for line in told if "gone" in line]) == 1, "not each check by itself"
    assert len(check_matrix(examined).rows) == 1


# What is taken from the answer -> the check that must then not be ok.
MISSING: dict[str, tuple[Callable[[Facts], Facts], str]] = {
    "xids": (lambda f: replace(f, xids=None), "GPU-005 GPU-020 HIST-001"),
    "acs": (lambda f: replace(f, p2p=replace(f.p2p, redirecting=None)), "GPU-014"),
    "iommu": (lambda f: replace(f, p2p=replace(f.p2p, iommu=None)), "GPU-015"),
    "peermem": (lambda f: replace(f, peermem=None, dmabuf=None), "IB-005"),
    "shm": (lambda f: replace(f, shm_bytes=None), "HOST-003"),
    "bus": (lambda f: replace(f, gpus_on_bus=None), "GPU-016"),
    "governors": (lambda f: replace(f, governors=None), "HOST-005"),
    "firmware's clocks": (lambda f: replace(f, governors=()), "HOST-005"),
    "clock source": (lambda f: replace(f, clock_source=""), "HOST-006"),
    "stuck": (lambda f: replace(f, stuck=None), "HOST-007"),
    "zombies": (lambda f: replace(f, zombies=None), "HOST-008"),
    "memory": (lambda f: replace(f, memory_bytes=0), "SAME-014"),
    "times of Xids": (lambda f: replace(f, xids=(Xid(code=31, pci="", count=9),)), "GPU-020"),
    "given in part": (lambda f: replace(f, gpus_on_bus=16, container="docker"), "GPU-016"),
    "device files": (
        lambda f: replace(f, hcas=tuple(replace(h, uverbs=None) for h in f.hcas)),
        "IB-007",
    ),
}
GPU_FIELDS = {
    "throttle": (None, "GPU-006"),
    "temperature_c": (None, "GPU-007"),
    "power_limit_w": (None, "GPU-008"),
    "fabric": ("", "GPU-011"),
    "persistence": (None, "GPU-013"),
    "users_known": (False, "GPU-002"),
    "memory_temperature_c": (None, "GPU-018"),
    "margin_c": (None, "GPU-019"),
    "vbios": ("", "SAME-011"),
    "gsp": ("", "SAME-012"),
    "inforom": ("", "SAME-013"),
}


@pytest.mark.parametrize("what", MISSING)
def test_a_missing_measurement_is_never_ok(what: str, good: tuple[Facts, Facts]) -> None:
    take, checks = MISSING[what]
    examined = checked(take(good[0]), good[1])
    unknown = {(r.node, r.check) for r in readings_in(examined, State.UNKNOWN)}
    assert unknown == {("n1", f"OR-DOC-{check}") for check in checks.split()}
    assert examined.status == "unproven"


@pytest.mark.parametrize("field", GPU_FIELDS)
def test_a_field_that_the_driver_does_not_know_is_never_ok(
    field: str, good: tuple[Facts, Facts]
) -> None:
    value, check = GPU_FIELDS[field]
    first, *rest = good[0].gpus
    facts = replace(good[0], gpus=(replace(first, **{field: value}), *rest))
    unknown = {(r.node, r.check) for r in readings_in(checked(facts, good[1]), State.UNKNOWN)}
    assert unknown == {("n1", f"OR-DOC-{check}")}


def test_errors_that_grow_are_told_from_old_ones(tmp_path: Path) -> None:
    old = build(tmp_path / "a", healthy("n1", ports=ports_with(1, errors={"link_downed": 2})))
    new = build(tmp_path / "b", healthy("n1", ports=ports_with(1, errors={"link_downed": 5})))
    spec = node_spec("n1", GpuSpec(count=8))

    steady = run_checks([Subject(spec=spec, facts=old, later=old)], Level.TWO_MINUTES)
    grown = run_checks([Subject(spec=spec, facts=old, later=new)], Level.TWO_MINUTES)
    lost = run_checks([Subject(spec=spec, facts=old)], Level.TWO_MINUTES)

    assert faults(steady) == set()
    assert ("n1", "OR-DOC-GROW-001") in faults(grown)
    assert "mlx5_1:1: link_downed +3" in "\n".join(finding_lines(grown))
    assert {r.check for r in readings_in(lost, State.UNKNOWN)} == {
        "OR-DOC-GROW-001",
        "OR-DOC-GROW-002",
        "OR-DOC-GROW-003",
        "OR-DOC-GROW-004",
    }


def test_xids_of_programs_are_no_fault_of_the_card(good: tuple[Facts, Facts]) -> None:
    facts = replace(good[0], xids=(Xid(code=13, pci="0000:33:00", count=4, in_a_day=4),))
    assert faults(checked(facts, good[1])) == set()


@pytest.mark.parametrize("kind,links", [("a30", 0), ("a100", 12), ("h200", 18), ("b200", 18)])
def test_other_cards_are_healthy_too(kind: str, links: int, tmp_path: Path) -> None:
    """A card without links has no NVLink to be missed."""
    switches = 4 if links else 0
    machine = healthy("n1", kind=kind, switches=switches)
    examined = checked(build(tmp_path, machine))
    assert faults(examined) == set(), list(finding_lines(examined))
    nvlink = next(r for r in examined.readings if r.check == "OR-DOC-GPU-010")
    assert nvlink.state is (State.OK if links else State.NONE)


def test_links_of_a_single_gpu_lead_nowhere(tmp_path: Path) -> None:
    """As a virtual machine with one H100 shows it; two of them without links are a fault."""
    none = {"total": 0, "active": 0, "mbyte_s": None, "errors": None, "peers": {}}
    cut = {index: {"nvlink": none} for index in range(2)}
    one = build(tmp_path, Machine(name="n1", gpus=1, switches=0, gpu=cut))
    two = build(tmp_path, Machine(name="n2", gpus=2, switches=0, gpu=cut))
    assert faults(checked(one, gpus=1)) == set()
    assert faults(checked(two, gpus=2)) == {("n2", "OR-DOC-GPU-010")}


def test_nodes_that_are_alike_share_a_column(good: tuple[Facts, Facts], tmp_path: Path) -> None:
    odd = build(tmp_path, healthy("n2", iommu="DMA"))
    examined = checked(good[0], odd, good[1])
    table = check_matrix(examined)
    assert table.headings == ("check", "n[1,3]", "n2", "id")
    assert ("IOMMU", "ok", "FAIL", "OR-DOC-GPU-015") in table.rows
    assert next(finding_lines(examined)).startswith("FAIL n2: the IOMMU translates for GPUs (DMA)")
    assert verdict_line(examined).startswith("unfit: 1 failed")


def test_broken_links_fail_at_both_ends_and_say_so_once(
    good: tuple[Facts, Facts], tmp_path: Path
) -> None:
    facts = (good[0], build(tmp_path, healthy("n2")), good[1])
    names = [found.node for found in facts]
    both = {("n1", "n3"), ("n3", "n1")}
    matrix = {(a, b): "timed out" * ((a, b) in both) for a in names for b in names if a != b}
    examined = linked(facts, Mesh(broken=tuple(explain_failures(names, matrix))))

    assert faults(examined) == {("n1", "OR-DOC-NET-001"), ("n3", "OR-DOC-NET-001")}
    first, following = list(finding_lines(examined))[:2]
    assert first.startswith("FAIL n[1,3]: n1 and n3 cannot open a TCP connection to each other")
    assert following.endswith("between n1 and n3; or leave one of them out: --nodes '!n3'")


def test_of_a_node_that_is_to_blame_the_others_are_only_witnesses(
    good: tuple[Facts, Facts], tmp_path: Path
) -> None:
    facts = (good[0], build(tmp_path, healthy("n2")), good[1])
    names = [found.node for found in facts]
    matrix = {(a, b): "timed out" * ("n2" in (a, b)) for a in names for b in names if a != b}
    examined = linked(facts, Mesh(broken=tuple(explain_failures(names, matrix))))

    assert faults(examined) == {("n2", "OR-DOC-NET-001")}
    assert list(finding_lines(examined))[1].endswith("at n2; or leave out: --nodes '!n2'")


def test_links_that_were_not_looked_at_are_never_ok(good: tuple[Facts, Facts]) -> None:
    examined = linked(good, Mesh(unasked={"n3": "its agent did not start"}))
    (unknown,) = readings_in(examined, State.UNKNOWN)
    assert (unknown.node, unknown.check) == ("n3", "OR-DOC-NET-001")
    assert examined.status == "unproven"


def linked(found: Sequence[Facts], mesh: Mesh) -> Examination:
    spec = GpuSpec(count=8)
    subjects = [Subject(spec=node_spec(f.node, spec), facts=f) for f in found]
    return run_checks(subjects, Level.QUICK, mesh)


def test_ids_are_of_one_form_and_unique() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert all(id.startswith("OR-DOC-") and id[-3:].isdigit() for id in ids)
    assert all("\n" not in check.remedy for check in CHECKS)
