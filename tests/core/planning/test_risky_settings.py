"""What users and files of NCCL set: it wins, and known bad habits are warned about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.tuning.names import KNOWN
from orchestrator.core.tuning.risky_settings import find_habits
from orchestrator.view.tables.explain_text import explain_lines
from tests.core.tuned import STORAGE, here, pair, planned, reasons, settings
from tests.core.world import node_spec, request
from tests.fixtures.machines import (
    Machine,
    build,
    compute_ports,
)


def test_the_owners_own_exports_win_and_are_warned_about(tmp_path: Path) -> None:
    """What is exported by hand on the two H100 nodes: two known bad habits and a level."""
    exported = {
        "NCCL_IB_DISABLE": "0",
        "NCCL_IB_GID_INDEX": "3",
        "NCCL_NET_GDR_LEVEL": "5",
        "NCCL_ALGO": "Ring",
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "OMP_NUM_THREADS": "8",
    }
    specs = tuple(replace(node_spec(name), env=exported) for name in ("n1", "n2"))
    base = request("n1", "n2")
    asked = replace(base, cluster=replace(base.cluster, nodes=specs))
    machine = Machine(ports=compute_ports())
    found = [build(tmp_path, replace(machine, name=name)) for name in ("n1", "n2")]

    made = planned(*found, asked=asked)

    env = {v.name: v for v in made.node("n1").env}
    assert {name: env[name].value for name in exported} == exported
    assert all(env[name].origin == "user" for name in exported)
    assert "left it alone: InfiniBand" in env["NCCL_IB_GID_INDEX"].reason
    warned = [warning.partition("=")[0] for warning in made.warnings]
    assert sorted(warned) == [
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "NCCL_ALGO",
        "NCCL_IB_GID_INDEX",
        "NCCL_NET_GDR_LEVEL",
    ]


@pytest.mark.parametrize(
    "name,value,rule",
    [
        ("NCCL_IB_GID_INDEX", "3", "habit-gid-index"),
        ("NCCL_ALGO", "Ring", "habit-ring"),
        ("NCCL_P2P_DISABLE", "1", "habit-p2p-off"),
        ("NCCL_SHM_DISABLE", "1", "habit-shm-off"),
        ("NCCL_IB_DISABLE", "1", "habit-ib-off"),
        ("NCCL_NVLS_ENABLE", "0", "habit-nvls-off"),
        ("NCCL_NET_GDR_LEVEL", "SYS", "habit-gdr-far"),
        ("NCCL_NET_GDR_LEVEL", "LOC", "habit-gdr-off"),
        ("NCCL_IB_TIMEOUT", "25", "habit-ib-timeout"),
        ("NCCL_DEBUG", "INFO", "habit-debug-info"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "1", "habit-one-connection"),
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", "habit-errors-ignored"),
        ("NCCL_ASYNC_ERROR_HANDLING", "1", "habit-unknown-name"),
        ("NCCL_NVLS_ENABLES", "1", "habit-unknown-name"),
        ("NCCL_SOCKET_TIMEOUT", "9", "habit-unknown-name"),
        ("TORCH_NCCL_TRACE_BUFER_SIZE", "1", "habit-unknown-name"),
        ("HF_DATASETS_CACHE", "/scratch/$USER/hf", "habit-variable"),
        ("NCCL_DEBUG_FILE", "${HOME}/nccl.%h", "habit-variable"),
        ("NCCL_SOCKET_IFNAME", "eno1", "habit-not-here"),
        ("NCCL_SOCKET_IFNAME", "==eth0", "habit-not-here"),
        ("NCCL_IB_HCA", "mlx5_1", "habit-not-here"),
        ("NCCL_IB_HCA", "=mlx5_1,mlx5_77", "habit-not-here"),
    ],
)
def test_known_bad_habits_are_warned_about(name: str, value: str, rule: str) -> None:
    assert [habit.rule for habit in find_habits({name: value}, here())] == [rule]


@pytest.mark.parametrize(
    "setting",
    [
        {"NCCL_IB_GID_INDEX": "-1"},
        {"NCCL_ALGO": "allreduce:tree;allgather:ring"},
        {"NCCL_ALGO": "^Ring"},
        {"NCCL_P2P_DISABLE": "0"},
        {"NCCL_NVLS_ENABLE": "2"},
        {"NCCL_IB_TIMEOUT": "22"},
        {"NCCL_DEBUG": "WARN"},
        {"CUDA_DEVICE_MAX_CONNECTIONS": "8"},
        {"NCCL_SOCKET_IFNAME": "eth"},
        {"NCCL_SOCKET_IFNAME": "^docker0"},
        {"NCCL_IB_HCA": "=mlx5_1,mlx5_10:1"},
        {"NCCL_IB_HCA": "^mlx5_10"},
        {"NCCL_IB_HCA": "mlx5"},
        {"MY_NCCL": "1"},
    ],
)
def test_what_is_well_set_is_not_warned_about(setting: Mapping[str, str]) -> None:
    assert find_habits(setting, here()) == []


def test_one_connection_is_right_for_megatron() -> None:
    setting = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert find_habits(setting, None, ["torch", "megatron"]) == []


def test_a_misspelt_name_is_given_its_nearest() -> None:
    (habit,) = find_habits({"NCCL_NVLS_ENABLES": "1"})
    assert "did you mean 'NCCL_NVLS_ENABLE'?" in habit.why


@given(st.sampled_from(sorted(KNOWN)))
def test_no_known_name_is_called_misspelt(name: str) -> None:
    assert [h.rule for h in find_habits({name: "x"})] in ([], ["habit-unknown-name"])
    assert not any("not known" in h.why for h in find_habits({name: "x"}))


def test_files_of_nccl_count_as_the_users(tmp_path: Path) -> None:
    """NCCL reads nccl.conf only for what the environment does not set: so we do not set it."""
    conf = {"NCCL_IB_HCA": "=mlx5_0", "NCCL_ALGO": "Ring"}
    machine = Machine(ports=[*compute_ports(), STORAGE], answer={"nccl_conf": conf})
    made = pair(tmp_path, machine)

    assert "NCCL_IB_HCA" not in settings(made, "n1")
    left = reasons(made, "n1")["NCCL_IB_HCA"]
    assert (left.value, left.origin) == ("=mlx5_0", "nccl.conf")
    assert "orchestrate would have set =mlx5_0,mlx5_1" in left.reason
    assert any(warning.startswith("NCCL_ALGO=Ring") for warning in made.warnings)


@pytest.mark.parametrize("launcher,without", [("torchrun", 2), ("direct", 2), ("command", 1)])
def test_what_the_launcher_sets_anyway_is_said_to_have_no_effect(
    tmp_path: Path, launcher: str, without: int
) -> None:
    """Ranks of plain commands do not meet, so an address of the user's own is all they have."""
    own = {"MASTER_ADDR": "localhost", "RANK": "0", "MINE": "x"}
    base = replace(request("n1", "n2"), env=own, launcher=launcher)
    modules = {"torch": "2.13.0", "ray": "2.60.0"}
    found = [replace(build(tmp_path, Machine(name=name)), modules=modules) for name in ("n1", "n2")]

    made = planned(*found, asked=base)

    told = [warning for warning in made.warnings if "has no effect" in warning]
    assert len(told) == without
    assert any("RANK is 0, set in --env" in warning for warning in told)
    kept = {variable.name for variable in made.nodes[0].env}
    assert "MINE" in kept
    assert ("MASTER_ADDR" in kept) == (launcher == "command")


def test_ranks_that_would_differ_are_told(tmp_path: Path) -> None:
    found = [build(tmp_path, Machine(name=name, ports=compute_ports())) for name in ("n1", "n2")]
    base = request("n1", "n2")
    odd = replace(node_spec("n2"), env={"NCCL_PROTO": "LL"})
    asked = replace(base, cluster=replace(base.cluster, nodes=(node_spec("n1"), odd)))

    made = planned(*found, asked=asked)

    text = "\n".join(explain_lines(made, made.nodes))
    assert any("NCCL_PROTO differs between nodes" in warning for warning in made.warnings)
    digests = {line.rpartition(" ")[2] for line in text.splitlines() if "environment of" in line}
    assert len(digests) == 2
    alike = pair(tmp_path / "alike", Machine(ports=compute_ports()))
    assert len([1 for line in explain_lines(alike, alike.nodes) if "environment of" in line]) == 1
