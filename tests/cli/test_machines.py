"""probe, doctor and explain over real local agents: what is shown, JSON, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.core.model.facts import Facts, Xid
from orchestrator.engine.oneshot.probe_nodes import Surveyed
from orchestrator.view.tables.probe_tables import SECTIONS, note_lines, probe_tables
from tests.fixtures.machines import Machine, Port, build, compute_ports, roce_ports

INVENTORY = """
name: here
defaults: {{transport: local, workdir: {workdir}}}
nodes: ["n[1-2]"]
"""
MIXED = """
name: mixed
nodes:
  - {{name: n1, transport: local, workdir: {workdir}}}
  - {{name: gone, ssh: 127.0.0.1, port: 1}}
"""
EIGHT = """
name: eight
defaults: {{transport: local, workdir: {workdir}, gpus: {{count: 8, type: H100}}}}
nodes: ["n[1-2]"]
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


def inventory(text: str, tmp_path: Path, workdir: Path) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(text.format(workdir=workdir))
    return str(path)


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# ---- probe --------------------------------------------------------------------------------------


@pytest.mark.processes
def test_equal_nodes_share_a_row(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "-C", inventory(INVENTORY, tmp_path, workdir)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["nodes", "GPUs"]
    assert rows[0].startswith("n[1-2]")


@pytest.mark.processes
def test_json_has_each_nodes_facts_and_one_result(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(INVENTORY, tmp_path, workdir)
    assert main(["probe", "env", "-C", path, "--json"]) == 0
    first, second, result = records(capsys)
    assert [first["node"], second["node"]] == ["n1", "n2"]
    assert first["facts"]["interpreter"]
    assert (result["type"], result["status"], result["failure"]) == ("result", "succeeded", None)


@pytest.mark.processes
def test_a_node_that_cannot_be_asked_is_told_and_the_others_are_shown(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(MIXED, tmp_path, workdir)
    assert main(["probe", "-C", path]) == 4
    captured = capsys.readouterr()
    assert "n1" in captured.out
    assert "gone" in captured.err
    assert main(["probe", "-C", path, "--json"]) == 4
    *_, result = records(capsys)
    assert (result["exit_code"], result["failure"]["node"]) == (4, "gone")


def test_an_unknown_cluster_is_an_error_with_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-C", "no-such-cluster", "--json"]) == 2
    (result,) = records(capsys)
    assert (result["type"], result["exit_code"]) == ("result", 2)


# ---- the tables of machines that are not here ---------------------------------------------------


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> list[Facts]:
    root = tmp_path_factory.mktemp("machines")
    storage = Port(name="mlx5_8", state="1: DOWN", physical="2: Polling")
    return [
        build(root, Machine(name="ib1", ports=[*compute_ports(), storage])),
        build(root, Machine(name="ib2", ports=[*compute_ports(), storage])),
        build(root, Machine(name="roce1", kind="b200", ports=roce_ports(), config_bytes=64)),
        build(root, Machine(name="a30", kind="a30", gpus=1, switches=0)),
    ]


def shown(machines: list[Facts], section: str) -> str:
    return "\n".join(
        "\n".join([table.title, *("  ".join(row) for row in (table.headings, *table.rows))])
        for table in probe_tables(machines, section)
    )


@pytest.mark.parametrize(
    "section,words",
    [
        ("summary", ["ib[1-2]  8x NVIDIA H100 80GB HBM3, 80 GiB", "8x 400G InfiniBand, 1 not"]),
        ("gpu", ["18/18 x 26.6 GB/s", "72/700 W", "gen5x16", "ib[1-2]: topology", "PIX"]),
        ("ib", ["mlx5_8:1  DOWN", "0 (PIX)", "RoCE v2", "nvidia_peermem", "identity"]),
        ("net", ["eth0  up  10.0.0.1", "SSH comes in here"]),
        ("env", ["bare metal", "torch 2.11.0", "running 570.86.15, 4 switches"]),
    ],
)
def test_a_section_shows_what_it_is_for(
    section: str, words: list[str], machines: list[Facts]
) -> None:
    text = shown(machines, section)
    assert [word for word in words if word not in text] == []


def test_every_section_bears_what_was_not_found_out(machines: list[Facts]) -> None:
    """Facts of a node that tells nothing: question marks, no error, and never "0" for unknown."""
    bare = Facts(node="bare", hostname="bare", gpus=machines[0].gpus[:1])
    for section in SECTIONS:
        shown([bare], section)
    assert "?" in shown([bare], "env")
    assert any("can only be read by root" in note for note in note_lines(machines))


# ---- doctor -------------------------------------------------------------------------------------


@pytest.mark.processes
def test_doctor_finds_gpus_that_are_declared_and_not_there(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(EIGHT, tmp_path, workdir)
    assert main(["doctor", "-C", path]) == 4
    out = capsys.readouterr().out
    assert "FAIL n[1-2]: the inventory declares 8 GPUs, found 0 (OR-DOC-GPU-001)" in out
    assert "     next: nvidia-smi -L" in out
    assert out.splitlines()[-1].startswith("unfit: 2 failed")


@pytest.mark.processes
def test_doctor_tells_machines_each_cell_and_one_result(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(MIXED, tmp_path, workdir)
    assert main(["doctor", "-C", path, "--json"]) == 4
    *cells, result = records(capsys)
    states = {(cell["node"], cell["check"]): cell["state"] for cell in cells}
    assert states["n1", "OR-DOC-NODE-001"] == "ok"
    assert states["gone", "OR-DOC-NODE-001"] == "fail"
    assert states["gone", "OR-DOC-HOST-001"] == "unknown"
    assert (result["status"], result["failure"]["id"]) == ("unfit", "OR-DOC-NODE-001")
    assert sum(result["checks"].values()) == len(cells)


@pytest.mark.processes
def test_doctor_looks_twice(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(INVENTORY, tmp_path, workdir)
    code = main(["doctor", "-C", path, "--level", "2min", "--watch", "1"])
    captured = capsys.readouterr()
    assert code == 0, captured.out
    assert "looking again in 1 s" in captured.err


def test_what_was_not_measured_is_unproven_and_fails_only_if_that_is_asked(
    tmp_path: Path,
    machines: list[Facts],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A node that hides its kernel's log and its PCIe bridges from us."""
    hidden = replace(machines[2], node="n1", xids=None)
    found = [Surveyed(node="n1", seconds=0.1, facts=hidden)]
    monkeypatch.setattr("orchestrator.cli.node_queries.take_survey", lambda *_, **__: found)
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nnodes: [n1]\n")

    assert main(["doctor", "-C", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("unproven: 4 not measured")
    assert "?    n1: no permission to read the kernel log (OR-DOC-GPU-005)" in out
    assert main(["doctor", "-C", str(path), "--strict"]) == 4


def test_an_xid_that_outlives_a_reboot_is_remembered(
    tmp_path: Path,
    machines: list[Facts],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the record that the command before left on this machine."""
    xid = Xid(code=79, pci="0000:33:00", count=1, last="2026-11-21T10:00:00", in_a_day=1)
    path = tmp_path / "one.yaml"
    path.write_text("name: reboots\nnodes: [n1]\n")
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))

    def doctor(boot: str) -> str:
        facts = replace(machines[2], node="n1", boot_id=boot, xids=(xid,))
        found = [Surveyed(node="n1", seconds=0.1, facts=facts)]
        monkeypatch.setattr("orchestrator.cli.node_queries.take_survey", lambda *_, **__: found)
        assert main(["doctor", "-C", str(path)]) == 4
        return capsys.readouterr().out

    assert "OR-DOC-HIST-001)" not in doctor("first")
    assert "OR-DOC-HIST-001)" not in doctor("first"), "the same boot, looked at twice"
    assert "FAIL n1: Xid 79 at 0000:33:00 in 2 boots within 30 days (OR-DOC-HIST-001)" in doctor(
        "2nd"
    )


# ---- explain ------------------------------------------------------------------------------------


def test_explain_says_where_every_variable_came_from(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(EIGHT, tmp_path, workdir)
    words = ["explain", "-C", path, "--offline", "--env", "NCCL_ALGO=Ring"]
    assert main([*words, "--json"]) == 0
    first, second, result = records(capsys)
    algo = next(v for v in first["set"] if v["name"] == "NCCL_ALGO")
    assert (algo["value"], algo["origin"]) == ("Ring", "user")
    assert all(v["reason"] for node in (first, second) for v in (*node["set"], *node["left"]))
    assert first["digest"] == second["digest"]
    assert any("NVLS" in warning for warning in result["warnings"])


@pytest.mark.processes
def test_explain_of_one_variable_and_one_node(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(INVENTORY, tmp_path, workdir)
    assert main(["explain", "-C", path, "--node", "n2", "--var", "OMP_NUM_THREADS"]) == 0
    out = capsys.readouterr().out
    assert "OMP_NUM_THREADS=" in out
    assert "why: " in out
    assert "see: https://docs.pytorch.org" in out
    assert "GLOO" not in out
    assert "n1" not in out


def test_explain_names_the_nearest_node(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(EIGHT, tmp_path, workdir)
    assert main(["explain", "-C", path, "--offline", "--node", "n11"]) == 2
    assert "did you mean 'n1'?" in capsys.readouterr().err


def test_secrets_are_not_explained(
    tmp_path: Path,
    workdir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NCCL_SECRET_TOKEN", "hunter2")
    path = inventory(EIGHT, tmp_path, workdir)
    for extra in ([], ["--json"]):
        words = ["explain", "-C", path, "--offline", "--env", "NCCL_SECRET_TOKEN", *extra]
        assert main(words) == 0
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert "NCCL_SECRET_TOKEN" in captured.out
