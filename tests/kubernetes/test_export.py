"""``orchestrate export kubernetes``: what it writes, and bad input, which exits with 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from tests.kubernetes.exported import pod_specs, read_folder, read_objects

pytestmark = pytest.mark.processes  # git lists what travels
COMMAND = ["export", "kubernetes", "--image", "registry/torch:2.13"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an inventory of two nodes and a script; and a home of its own."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    (work / "lab.yaml").write_text("name: lab\ndefaults: {gpus: 8}\nnodes: ['n[1-2]']\n")
    (work / "train.py").write_text("print('here')\n")
    monkeypatch.chdir(work)
    return work


def refusal(capsys: pytest.CaptureFixture[str], *options: str, job: tuple[str, ...] = ()) -> str:
    """What is said when the command ends with exit code 2, of which nothing is output."""
    words = job or ("--workdir", ".", "--", "train.py")
    assert main([*COMMAND, "-C", "lab.yaml", *options, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_all_objects_are_printed_or_written(
    capsys: pytest.CaptureFixture[str], own_folder: Path
) -> None:
    """As one stream, or one file each; the same, byte for byte, each time."""
    job = ["-C", "lab.yaml", "-W", "finetune", "--queue", "gpus"]
    assert main([*COMMAND, *job]) == 0
    printed = capsys.readouterr().out
    assert main([*COMMAND, *job, "--out", "there"]) == 0
    written = capsys.readouterr()

    assert written.out.split() == [f"there/{n}.yaml" for n in ("jobset", "plan", "code")]
    assert "kubectl apply --server-side -f there" in written.err
    objects = read_objects(printed)
    assert objects == read_folder(own_folder / "there")
    assert set(objects) == {
        "JobSet/finetune",
        "ConfigMap/finetune-plan",
        "ConfigMap/finetune-code",
    }
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pod_specs(objects)]
    assert limits == [{"nvidia.com/gpu": "8"}] * 2


def test_an_export_replaces_an_earlier_one(own_folder: Path) -> None:
    """A job that was exported another way before leaves nothing for kubectl to apply."""
    servers = ["-C", "lab.yaml", "--serving", "8000", "--out", "there", "--", "train.py"]
    assert main([*COMMAND, *servers]) == 0
    ending = ["-C", "lab.yaml", "--code", "image", "--out", "there", "--", "train.py"]
    assert main([*COMMAND, *ending]) == 0

    names = {path.name for path in (own_folder / "there").iterdir()}
    assert names == {"code", "jobset.yaml", "plan.yaml", ".gitignore"}


def test_an_export_into_the_project_is_no_code_of_the_next(own_folder: Path) -> None:
    """Else each would hold all before it."""
    words = [*COMMAND, "-C", "lab.yaml", "--out", "there", "--", "train.py"]
    assert main(words) == 0
    first = (own_folder / "there" / "code.yaml").read_bytes()
    assert main(words) == 0

    assert (own_folder / "there" / "code.yaml").read_bytes() == first


@pytest.mark.parametrize(
    "options, said",
    [
        (("--name", "Fine_Tune"), "--name: no name for a job: 'Fine_Tune'"),
        (("--container", "train:1"), "a pod is a container already"),
        (("--replicas", "2"), "only servers have replicas"),
        (("--name", "a" * 60), "too long"),
        (("--name", "a" * 64), "a name of 64 characters"),
        (("--resource", "cpu=1", "--resource", "cpu=2"), "cpu was given twice: 1 and 2"),
        (("--image", "two words"), "--image: no image: 'two words'"),
        (("--namespace", "Team"), "--namespace: no name of an object: 'Team'"),
        (("--queue", "g_1"), "--queue: no name of an object"),
        (("--resource", "memry=1Gi"), "did you mean 'memory'?"),
        (("--resource", "memory=much"), "memory: no quantity: 'much'"),
        (("--resource", "rdma/hca=0.5"), "rdma/hca: no quantity"),
        (("--resource", "cpu=0"), "cpu: no quantity: '0'"),
        (("--resource", "nvidia.com/gpu=4"), "the inventory says how many GPUs"),
        (("--node-selector", "zone"), "--node-selector: no label: 'zone'"),
        (("--toleration", "a b"), "--toleration: no taint: 'a b'"),
        (("--toleration", "gpu:NoShedule"), "did you mean 'NoSchedule'?"),
        (("--pull-secret", "A_B"), "--pull-secret: no name of an object"),
        (("--code", "configmp"), "did you mean 'configmap'?"),
        (("--code", "claim"), "--code: no place for code: 'claim'"),
        (("--code", "image"), "--code image needs a folder to write the code to"),
        (("--launcher", "ray"), "--launcher ray needs the addresses of nodes"),
        (("--launcher", "slurm"), "--launcher slurm needs the addresses of nodes"),
        (("--env", "CUDA_VISIBLE_DEVICES=0"), "n1: CUDA_VISIBLE_DEVICES names GPUs of a machine"),
        (("--nodes", "n7"), "n7"),
        (("--env", os.fsdecode(b"X=\xff")), "would hold what is not Unicode"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_bad_options_are_refused(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(capsys, *options)


@pytest.mark.parametrize(
    "job, said",
    [
        (("-W", "mlperf"), "mlperf divides samples, which only a coordinator can lease"),
        (("-W", "finetun"), "did you mean 'finetune'?"),
        (
            ("-W", "serve", "--serving", "8000"),
            "next: --set host=0.0.0.0 --set port=8000",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_jobs_that_pods_cannot_do_are_refused(
    job: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(capsys, job=job)


def test_mistakes_in_the_inventory_have_their_place(
    capsys: pytest.CaptureFixture[str], own_folder: Path
) -> None:
    """File, line, and the nearest key; or what it does not say."""
    inventory = own_folder / "lab.yaml"
    inventory.write_text("name: lab\ndefaults:\n  gpu: 8\nnodes: [n1]\n")
    said = refusal(capsys)
    assert "lab.yaml:3" in said
    assert "did you mean 'gpus'?" in said

    inventory.write_text("name: lab\nnodes: [n1]\n")
    assert "n1: the inventory does not say how many GPUs it has" in refusal(capsys)


def test_code_that_no_config_map_holds_is_named(
    capsys: pytest.CaptureFixture[str], own_folder: Path
) -> None:
    """With the largest files, and the ways around it; the other places take it."""
    (own_folder / "tokens.bin").write_bytes(os.urandom(1536 * 1024))

    said = refusal(capsys)

    assert "the code takes 1.5 MiB compressed, a ConfigMap holds 1 MiB" in said
    assert "tokens.bin (1536 KiB)" in said
    assert "--code claim:NAME" in said
    job = ["-C", "lab.yaml", "--workdir", ".", "--code", "claim:code", "--out", "there"]
    assert main([*COMMAND, *job, "--", "train.py"]) == 0
    assert sum(path.stat().st_size for path in Path("there/code").glob("*/*")) > 1536 * 1024
    assert "bring the folder there/code into the claim code" in capsys.readouterr().err


def test_nodes_that_are_asked_count_in_place_of_the_inventory(
    capsys: pytest.CaptureFixture[str], own_folder: Path
) -> None:
    """Their processors and GPUs, over SSH as for a plan; here without it."""
    here = f"{{transport: local, workdir: '{own_folder / 'node'}'}}"
    (own_folder / "here.yaml").write_text(f"name: here\ndefaults: {here}\nnodes: [n1]\n")

    assert main([*COMMAND, "-C", "here.yaml", "--probe", "--workdir", ".", "--", "train.py"]) == 0

    said = capsys.readouterr()
    (pod,) = pod_specs(read_objects(said.out))
    env = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    assert int(env["OMP_NUM_THREADS"]) >= 1
    assert "CPUs may be used) [threads-share-cpus]" in said.out
