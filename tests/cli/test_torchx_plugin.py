"""TorchX's apps as runs: what is taken over, and what is refused by its name."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.torchx_plugin import create_scheduler, translate
from orchestrator.cli.torchx_plugin.translate import RoleNeeds, RunOrder, Unsupported

specs = pytest.importorskip("torchx.specs", reason="torchx is not installed")
dist = pytest.importorskip("torchx.components.dist")
utils = pytest.importorskip("torchx.components.utils")

WORDS = st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), max_size=4)
GPU_NODE = {"cpus": 64, "memory_bytes": 512_000_000_000, "gpus": [{}] * 8}


def ddp(*arguments: str, **given: Any) -> Any:
    """What `dist.ddp` makes of its options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its newer name is dist.torchrun
        return dist.ddp(*arguments, **{"script": "train.py", "j": "2x8", **given})


def order(app: Any, monkeypatch: pytest.MonkeyPatch, home: Path, **config: object) -> RunOrder:
    """What a dry run gives."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(home))
    scheduler = create_scheduler("session")
    resolved = scheduler.run_opts().resolve({"cluster": "lab", **config})
    asked = scheduler.submit_dryrun(app, resolved).request
    assert isinstance(asked, RunOrder)
    return asked


def test_ddp_becomes_a_run_of_its_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By our launcher, so that ranks are known; with its environment, and the GPUs of each node."""
    app = ddp("--lr", "1e-4", env={"COLOUR": "red and blue"}, gpu=4, h=None)
    asked = order(app, monkeypatch, tmp_path, nodes="gpu[01-04]", wait=60, fabric_probe=False)

    assert (asked.replicas, asked.ranks, asked.launcher) == (2, 8, "auto")
    assert asked.words == ("python", "train.py", "--lr", "1e-4")
    assert asked.needs == RoleNeeds(cpus=2, memory_mb=1024, gpus=4)
    words = asked.arguments("gpu[01-02]")
    for pair in (
        *(("--cluster", "lab"), ("--nodes", "gpu[01-02]"), ("--ranks-per-node", "8")),
        *(("--env", "COLOUR=red and blue"), ("--env", "CUDA_VISIBLE_DEVICES=0,1,2,3")),
        *(("--env", "TORCHX_ROLE_NAME=train"), ("--run-id", asked.run_id), ("--wait", "60")),
    ):
        at = [i for i, word in enumerate(words) if word == pair[0]]
        assert pair[1] in [words[i + 1] for i in at], pair
    assert "--no-fabric-probe" in words
    assert shlex.split(str(asked))[:3] == ["orchestrate", "run", "--detach"]


def test_ranks_run_in_a_container_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = "registry.example:5000/ml/torch:2.13"
    words = order(
        ddp(h=None), monkeypatch, tmp_path, container=image, container_engine="apptainer"
    ).arguments("")
    assert words[words.index("--container") + 1] == image
    assert words[words.index("--container-engine") + 1] == "apptainer"


def test_another_command_runs_once_on_each_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = order(utils.sh("echo", "hello there", num_replicas=3), monkeypatch, tmp_path)

    assert (asked.replicas, asked.ranks, asked.launcher) == (3, 1, "command")
    assert asked.words == ("sh", "-c", "echo 'hello there'")


@given(WORDS)
def test_arguments_arrive_as_they_were_given(words: list[str]) -> None:
    """Through the shell line that TorchX makes of them, whatever they hold."""
    role = ddp(*words).roles[0]
    filled = specs.macros.Values(img_root="", app_id="x", replica_id="", rank0_env="H").apply(role)
    line = translate.torchrun_line(filled)

    assert line is not None
    expected = [specs.macros.Values("", "x", "", "H").substitute(word) for word in words]
    assert translate.torchrun_job(line, 2) == (8, ["python", "train.py", *expected])


REFUSED = {
    "max_retries=3": {"max_retries": 3},
    "min_replicas (1:2 nodes)": {"j": "1:2x8"},
    "mounts": {"mounts": ["type=bind", "src=/data", "dst=/data"]},
    "metadata team": {"metadata": {"team": "blue"}},
    "rdzv_port=1234": {"rdzv_port": 1234},
    "--rdzv_backend=etcd": {"rdzv_backend": "etcd"},
    "--tee=1": {"tee": 1},
    "image pytorch/pytorch:2": {"image": "pytorch/pytorch:2"},
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(
    named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = ddp(**REFUSED[named])
    with pytest.raises(specs.InvalidRunConfigException) as refused:
        order(app, monkeypatch, tmp_path)

    assert named in str(refused.value)
    assert "Given:" not in str(refused.value)


def test_roles_macros_and_resources_are_refused_by_name() -> None:
    role = ddp().roles[0]
    two = specs.AppDef(name="two", roles=[role, replace(role, name="reader")])
    with pytest.raises(Unsupported, match=r"2 roles \(train, reader\)"):
        translate.refuse_app(two)
    resource = replace(role.resource, capabilities={"sku": "p4d"}, devices={"efa": 4})
    with pytest.raises(Unsupported, match=r"capabilities sku.*devices efa"):
        translate.refuse_app(specs.AppDef(name="one", roles=[replace(role, resource=resource)]))
    for macro in (specs.macros.replica_id, specs.macros.rank0_env):
        with pytest.raises(Unsupported, match=macro[2:-1]):
            translate.refuse_macros(specs.Role("shell", "", entrypoint="sh", args=["-c", macro]))


def test_nodes_are_the_first_that_have_what_is_asked() -> None:
    asked = RunOrder(
        run_id="x",
        role="train",
        replicas=2,
        ranks=8,
        needs=RoleNeeds(cpus=32, memory_mb=100_000, gpus=8),
        cluster="lab",
        nodes="",
        workdir=".",
        launcher="auto",
        env=(),
        words=("true",),
    )
    small = {**GPU_NODE, "gpus": [], "cpus": 4}
    facts = {"a": small, "b": GPU_NODE, "c": None, "d": GPU_NODE, "e": GPU_NODE}

    assert translate.pick_nodes(facts, asked) == ["b", "d"]
    with pytest.raises(Unsupported) as refused:
        translate.pick_nodes({name: facts[name] for name in "abc"}, asked)
    assert str(refused.value) == (
        "2 nodes are asked, 1 of lab fit; a: 4 CPUs of 32, 0 GPUs of 8; c: does not answer"
    )
