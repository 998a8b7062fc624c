"""Containers as pure functions: whose image and engine count, command lines, and engines' words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.command import Secret
from orchestrator.core.base.problem import Problem
from orchestrator.core.containers import ENGINES
from orchestrator.core.containers.asking import image_question
from orchestrator.core.containers.choosing import choose_container, find_misuse
from orchestrator.core.containers.containing import container_interpreter, different_images
from orchestrator.core.containers.engine import ContainerShare
from orchestrator.core.containers.engine_errors import explain_error
from orchestrator.core.fabric.probe_world import CPU_BYTES, PROGRAM, probe_processes
from orchestrator.core.launchers import LAUNCHERS
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.container import ContainerImage, ContainerSpec, Engine, Mount
from orchestrator.core.model.facts import Hca
from orchestrator.core.model.inventory import PythonKind, PythonSpec
from orchestrator.core.model.plan import Plan, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import Refusal, make_plan
from orchestrator.node_agent.attempt.launch import PLACEHOLDER
from orchestrator.node_agent.containers.container_jobs import REMOVE
from orchestrator.node_agent.containers.image import seen_outside, state_of
from tests.core.world import facts, node_spec, request

PYTHON = "/opt/venv/bin/python"
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
SPEC = ContainerSpec(
    image="registry.example/ml/pytorch:2.11",
    engine=Engine.PODMAN,
    mounts=(Mount(source="/data", target="/data", read_only=True),),
    options=("--cpus=8",),
)
SHARE = ContainerShare(
    program="/usr/bin/x",
    image="IMAGE",
    command=("python3", "train.py"),
    name="{container}-launcher",
    directory="{work}",
    mounts=(Mount(source="/a", target="/b"), Mount(source="/c", target="/c", read_only=True)),
    variables=("RANK", "TOKEN"),
    labels=("orchestrate.run=r",),
    infiniband=True,
    options=("--own=1",),
)
SPECS = st.none() | st.builds(
    ContainerSpec,
    image=st.sampled_from(["", "a", "b", "none"]),
    engine=st.none() | st.sampled_from(Engine),
    mounts=st.lists(
        st.builds(Mount, source=st.sampled_from(["/1", "/2"]), target=st.sampled_from(["/x", "/y"]))
    ).map(tuple),
    options=st.lists(st.sampled_from(["--o=1", "--p"])).map(tuple),
)


def asked(*names: str, spec: ContainerSpec = SPEC, **fields: object) -> RunRequest:
    made = replace(request(*names), code="c0de", **fields)  # type: ignore[arg-type]
    nodes = tuple(replace(node, container=spec) for node in made.cluster.nodes)
    return replace(made, cluster=replace(made.cluster, nodes=nodes))


def found(name: str, *, gpus: int = 0, digest: str = DIGEST) -> NodeFinding:
    return NodeFinding(
        facts=facts(name, gpus=gpus),
        interpreter=PYTHON,
        modules={"torch": "2.13.0", "ray": "2.50"},
        image=ContainerImage(reference=digest, digest=digest, program="/usr/bin/podman"),
    )


def decided(asked_for: RunRequest, *findings: NodeFinding) -> Plan | Refusal:
    return make_plan(asked_for, {f.facts.node: f for f in findings}, {})


def planned(asked_for: RunRequest, *findings: NodeFinding) -> Plan:
    made = decided(asked_for, *findings)
    assert isinstance(made, Plan), made
    return made


def value_of(argv: tuple[str, ...], option: str) -> list[str]:
    return [word.partition("=")[2] for word in argv if word.startswith(option + "=")]


# ---- whose container ---------------------------------------------------------------------------


def test_what_was_typed_counts_most_then_workload_and_node() -> None:
    node = ContainerSpec(image="of-node", engine=Engine.DOCKER, options=("--n=1",))
    workload = ContainerSpec(image="of-workload", engine=Engine.APPTAINER, options=("--w=1",))
    both = choose_container(node, workload, "", "")
    assert both is not None
    assert (both.image, both.engine) == ("of-workload", Engine.DOCKER)
    assert both.options == ("--n=1", "--w=1")
    typed = choose_container(node, workload, "typed", "enroot")
    assert typed is not None
    assert (typed.image, typed.engine) == ("typed", Engine.ENROOT)
    assert choose_container(None, None, "typed", "") == ContainerSpec(
        image="typed", engine=Engine.PODMAN
    )


@given(node=SPECS, workload=SPECS)
def test_no_image_no_container(node: ContainerSpec | None, workload: ContainerSpec | None) -> None:
    assert choose_container(node, workload, "none", "docker") is None
    chosen = choose_container(node, workload, "", "")
    images = [spec.image for spec in (workload, node) if spec is not None and spec.image]
    wanted = images[0] if images and images[0] != "none" else None
    assert (chosen.image if chosen else None) == wanted
    if chosen is not None:
        assert chosen.engine is not None
        targets = [mount.target for mount in chosen.mounts]
        assert len(set(targets)) == len(targets)
        for mount in node.mounts[-1:] if node else ():
            assert mount in chosen.mounts


@pytest.mark.parametrize(
    "engine,image,fits",
    [
        (Engine.PODMAN, "ubuntu:24.04", True),
        (Engine.PODMAN, "registry.example/a/b@" + DIGEST, True),
        (Engine.PODMAN, "oci-archive:/shared/a.tar", True),
        (Engine.PODMAN, "oci-archive:a.tar", False),
        (Engine.DOCKER, "docker-archive:/shared/a.tar", False),
        (Engine.DOCKER, "ubuntu", True),
        (Engine.DOCKER, "--privileged", False),
        (Engine.APPTAINER, "/shared/a.sif", True),
        (Engine.APPTAINER, "docker://ubuntu", False),
        (Engine.ENROOT, "$HOME/a.sqsh", True),
        (Engine.ENROOT, "ubuntu", False),
        (Engine.PODMAN, "a b", False),
        (Engine.PODMAN, "a\nb", False),
    ],
)
def test_which_images_an_engine_runs(engine: Engine, image: str, fits: bool) -> None:
    assert (find_misuse(ContainerSpec(image=image, engine=engine)) == "") is fits


# ---- command lines, beside what engines document ------------------------------------------------


def test_podman() -> None:
    assert ENGINES[Engine.PODMAN].run(replace(SHARE, gpus=ENGINES[Engine.PODMAN].gpus)) == (
        *("/usr/bin/x", "run", "--rm", "--network=host", "--pid=host", "--ipc=host"),
        *("--security-opt=label=disable", "--pids-limit=-1", "--log-driver=none"),
        *("--pull=never", "--entrypoint=", "--user=0:0"),
        *("--name={container}-launcher", "--workdir={work}", "--label=orchestrate.run=r"),
        "--mount=type=bind,source=/a,destination=/b",
        "--mount=type=bind,source=/c,destination=/c,readonly",
        *("--env=RANK", "--env=TOKEN", "--device=nvidia.com/gpu=all"),
        *("--device=/dev/infiniband", "--cap-add=IPC_LOCK"),
        *("--own=1", "IMAGE", "python3", "train.py"),
    )


def test_docker() -> None:
    """A daemon of root starts it, with limits of its own."""
    argv = ENGINES[Engine.DOCKER].run(replace(SHARE, gpus=ENGINES[Engine.DOCKER].gpus))
    podman = ENGINES[Engine.PODMAN].run(SHARE)
    assert set(podman) - set(argv) == {"--user=0:0"}
    assert set(argv) - set(podman) == {"--user={user}", "--ulimit=memlock=-1", "--gpus=all"}


def test_apptainer() -> None:
    """The environment is handed on by itself."""
    assert ENGINES[Engine.APPTAINER].run(replace(SHARE, gpus=("--nv",))) == (
        *("/usr/bin/x", "exec", "--pwd={work}", "--bind=/a:/b:rw", "--bind=/c:/c:ro", "--nv"),
        *("--own=1", "IMAGE", "python3", "train.py"),
    )


def test_enroot() -> None:
    """It has no option for the directory."""
    assert ENGINES[Engine.ENROOT].run(SHARE) == (
        *("/usr/bin/x", "start", "--rw"),
        *("--mount", "/a:/b:none:x-create=auto,rbind"),
        *("--mount", "/c:/c:none:x-create=auto,rbind,ro"),
        *("--env", "RANK", "--env", "TOKEN", "--env", "MELLANOX_VISIBLE_DEVICES=all"),
        *("--own=1", "--", "IMAGE"),
        *("sh", "-c", 'cd "$0" && exec "$@"', "{work}", "python3", "train.py"),
    )


def test_the_agent_removes_what_engines_keep() -> None:
    assert {engine.name.value for engine in ENGINES.values() if engine.keeps} == set(REMOVE)


# ---- plans -------------------------------------------------------------------------------------


def test_a_launcher_runs_in_one_container_of_a_node() -> None:
    made = planned(asked("a", "b", launcher="torchrun"), found("a", gpus=2), found("b", gpus=2))
    for share in made.nodes:
        (process,) = share.processes
        assert (process.label, process.rank) == ("launcher", None)
        at = process.argv.index(DIGEST)
        assert process.argv[0] == "/usr/bin/podman"
        assert process.argv[at + 1 :][:3] == (PYTHON, "-m", "torch.distributed.run")
        shim = process.argv.index("{agent}/process/rank_shim.py")
        assert process.argv[shim - 3 : shim] == (PYTHON, "-I", "-S")
        assert "--device=nvidia.com/gpu=all" in process.argv[:at]
        assert "--cpus=8" in process.argv[:at]


def test_each_rank_without_a_launcher_is_under_the_shim() -> None:
    made = planned(asked("a", launcher="direct", ranks_per_node=2), found("a"))
    labels = [(process.label, process.rank) for process in made.head.processes]
    assert labels == [("container-0", None), ("container-1", None)]
    for process in made.head.processes:
        at = process.argv.index(DIGEST)
        shim = (PYTHON, "-I", "-S", "{agent}/process/rank_shim.py", "--", PYTHON)
        assert process.argv[at + 1 :][: len(shim)] == shim
        assert value_of(process.argv, "--name") == ["{container}-rank-" + process.label[-1]]


def test_every_variable_goes_in_by_its_name_alone() -> None:
    """Values would be seen in the list of processes."""
    env = {"TOKEN": Secret("hunter2"), "PLAIN": "hunter3"}
    made = planned(asked("a", launcher="direct", env=env), found("a"))
    share, (process,) = made.head, made.head.processes
    names = value_of(process.argv, "--env")
    assert {v.name for v in (*share.env, *process.env)} <= set(names)
    assert {"RANK", "MASTER_ADDR", "TOKEN", "PLAIN", "ORCHESTRATE_ATTEMPT_DIR"} <= set(names)
    assert len(set(names)) == len(names)
    assert not [word for word in process.argv if "hunter" in word]


def test_devices_are_shown_where_there_are_some() -> None:
    none = planned(asked("a", launcher="direct"), found("a")).head.processes[0].argv
    assert not [word for word in none if word.startswith("--device")]
    port = Hca(name="mlx5_0", port=1, state="ACTIVE", link_layer="InfiniBand")
    with_port = found("a", gpus=1)
    with_port = replace(with_port, facts=replace(with_port.facts, hcas=(port,)))
    both = planned(asked("a", launcher="direct"), with_port).head.processes[0].argv
    assert value_of(both, "--device") == ["nvidia.com/gpu=all", "/dev/infiniband"]


def test_placeholders_are_those_that_the_node_fills_in() -> None:
    for engine in Engine:
        spec = replace(SPEC, engine=engine, image="/a.sif")
        made = planned(asked("a", spec=spec, launcher="direct"), found("a"))
        words = [word for process in made.head.processes for word in process.argv]
        assert not [word for word in words if "{" in PLACEHOLDER.sub("", word)]


def test_different_images_are_refused() -> None:
    made = decided(asked("a", "b", "c"), found("a"), found("b", digest=OTHER), found("c"))
    assert isinstance(made, Refusal)
    assert made.problem.id == "OR-CONTAINER-003"
    assert f"a, c: {DIGEST}; b: {OTHER}" in made.problem.message
    assert different_images([("a", found("a").image), ("b", None)]) is None


@pytest.mark.parametrize("name", [n for n, kind in LAUNCHERS.items() if not kind.containable])
def test_launchers_that_start_no_containers_are_refused(name: str) -> None:
    made = decided(asked("a", launcher=name), found("a"))
    assert isinstance(made, Refusal)
    assert made.problem.id == "OR-PLAN-002"
    assert name in made.problem.message


def test_a_trial_of_the_fabric_runs_where_the_ranks_will() -> None:
    """With their image, mounts and options, of which no folder of the attempt is there yet."""
    probed = asked("a", "b", launcher="torchrun", fabric_probe=True)
    plan = planned(probed, found("a"), found("b"))
    assert plan.proves_fabric
    rendezvous = Rendezvous(address="10.0.0.1", port=29500)
    plan = replace(plan, rendezvous=rendezvous)
    (trial,) = probe_processes("pair-1", plan, ["a", "b"], "10.0.0.1", 4000)["b"]
    assert trial.argv[0] == "/usr/bin/podman"
    assert value_of(trial.argv, "--name") == ["{container}-pair-1-1"]
    assert {"RANK", "MASTER_PORT", "ORCHESTRATE_RUN_ID"} <= set(value_of(trial.argv, "--env"))
    assert "--cpus=8" in trial.argv
    mounted = " ".join(value_of(trial.argv, "--mount"))
    assert "source=/data," in mounted
    assert "{attempt}" not in mounted
    place = trial.argv.index(DIGEST)
    assert trial.argv[place + 1 :] == (PYTHON, "-u", PROGRAM, "gloo", str(CPU_BYTES))

    bare = replace(probed, cluster=request("a", "b").cluster)
    plan = planned(bare, *(replace(found(name), image=None) for name in "ab"))
    plan = replace(plan, rendezvous=rendezvous)
    (trial,) = probe_processes("all", plan, ["a", "b"], "10.0.0.1", 4000)["b"]
    assert trial.argv == (PYTHON, "-u", PROGRAM, "gloo", str(CPU_BYTES))


@pytest.mark.parametrize(
    "option, lasting",
    [
        ("--ulimit=nofile=65536:65536", True),
        ("--privileged", True),
        ("--env-file=/etc/env", False),
        ("--volume=/opt:/opt", False),
        ("-v/opt:/opt", False),
        ("--cpus", False),  # who knows what the next word is
        ("32", False),
    ],
)
def test_what_an_image_has_is_remembered_unless_an_option_brings_files(
    option: str, lasting: bool
) -> None:
    spec = replace(SPEC, options=("--cpus=8", option))
    question = image_question(replace(node_spec("a"), container=spec), [])
    assert question["lasting"] is lasting
    assert question["mounts"] == [["/data", "/data"]]


def test_what_is_remembered_of_mounts_is_what_a_python_reads_of_them(tmp_path: Path) -> None:
    """A package that somebody installs there is seen; a place that is gone is asked about again."""
    packages = tmp_path / "env" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    mounts = [(str(packages), "/opt/env/lib/own"), (str(tmp_path / "env"), "/opt/env")]
    inside = ["/usr/lib/python3", "/opt/environment", "/opt/env/lib/own/x", "/opt/env/lib", ""]
    assert list(seen_outside(inside, mounts)) == [
        f"{packages}/x",
        f"{tmp_path}/env/lib",
    ]
    path = "/usr/lib/python3:/opt/env/lib/site-packages"
    before = state_of(path, mounts)
    assert before
    assert before == state_of(path, mounts)
    (packages / "torch").mkdir()
    os.utime(packages, ns=(1, 1))  # another time than before, whatever the clock's grain
    assert state_of(path, mounts) not in ("", before)
    assert state_of("/opt/env/lib/absent", mounts) == ""


@pytest.mark.parametrize(
    "kind,value,path",
    [
        (PythonKind.INTERPRETER, "/usr/bin/python3", "/usr/bin/python3"),
        (PythonKind.VENV, "/opt/v/", "/opt/v/bin/python"),
        (PythonKind.CONDA, "/opt/c", "/opt/c/bin/python"),
        (PythonKind.CONDA, "base", "/opt/conda/bin/python"),
        (PythonKind.CONDA, "ml", "/opt/conda/envs/ml/bin/python"),
        (PythonKind.WORKLOAD, "", "python3"),
    ],
)
def test_which_python_of_an_image(kind: PythonKind, value: str, path: str) -> None:
    python = PythonSpec(kind=kind, value=value)
    assert container_interpreter(replace(node_spec("a"), python=python)) == path


def test_what_a_node_is_asked() -> None:
    """A name is shown or pulled, an archive always read, a file digested by the agent."""
    question = image_question(replace(node_spec("a"), container=SPEC), ["torch"])
    assert question["show"] == ["image", "inspect", "--format={{.Id}}", SPEC.image]
    assert (question["pull"], question["file"]) == (["pull", SPEC.image], "")
    assert question["gpus"] == ["--device=nvidia.com/gpu=all"]
    inside = question["inside"]
    assert isinstance(inside, list)
    assert inside[0] == "{program}"
    assert inside[-3:] == ["--cpus=8", "{image}", "python3"]
    assert "--mount=type=bind,source=/data,destination=/data,readonly" in inside
    assert question["lasting"] is True, "a limit of CPUs changes no file"
    bare = replace(SPEC, mounts=(), options=())
    assert image_question(replace(node_spec("a"), container=bare), [])["lasting"] is True
    archive = replace(SPEC, image="oci-archive:/a.tar")
    question = image_question(replace(node_spec("a"), container=archive), [])
    assert (question["show"], question["pull"]) == ([], ["pull", "oci-archive:/a.tar"])
    sif = replace(SPEC, image="/a.sif", engine=Engine.APPTAINER)
    question = image_question(replace(node_spec("a"), container=sif), [])
    assert (question["pull"], question["file"]) == ([], "/a.sif")


# ---- what engines complain of: their own words, as they wrote them ------------------------------

UNANSWERED = (
    "podman: no working Python python3 in the image: interpreter /usr/bin/podman ended with"
)
UNSTARTED = (
    "podman: no container of the image can be started: interpreter /usr/bin/podman ended with 125:"
)
UNREACHABLE = "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
REGISTRY = "pinging container registry registry.example: dial tcp: network is unreachable"
NO_RANGES = 'cannot find UID/GID for user worker: no subuid ranges found for user "worker"'
WORDS = [
    ("podman: not installed on this node", "001", "install podman"),
    (
        f"podman: Error: initializing source docker://registry.example/x/nope:1: {REGISTRY}",
        "002",
        "podman pull registry.example/ml/pytorch:2.11",
    ),
    ('podman: Error: short-name "nope" did not resolve to an alias', "002", "podman pull"),
    (f"podman: {NO_RANGES}", "004", "usermod --add-subuids"),
    (UNREACHABLE, "005", "systemctl start docker"),
    (
        f"{UNANSWERED} 126: Error: unresolvable CDI devices nvidia.com/gpu=all",
        "006",
        "nvidia-ctk cdi generate",
    ),
    (
        f"{UNANSWERED} 127: Error: crun: executable file `python3` not found in $PATH",
        "007",
        "Python 3.8",
    ),
    ("docker: it is podman by another name: anything", "010", "--container-engine podman"),
    ("podman: Error: something new", "009", "what podman run"),
    (
        f"{UNSTARTED} Error: statfs /no/such/dir: no such file or directory",
        "008",
        "make that folder",
    ),
    (
        f"{UNSTARTED} Error: invalid option",
        "009",
        "mounts and options",
    ),
]


@pytest.mark.parametrize("said,id,remedy", WORDS)
def test_what_an_engine_says_is_explained(said: str, id: str, remedy: str) -> None:
    known = explain_error(SPEC, said)
    assert known == Problem(id=f"OR-CONTAINER-{id}", message=said, remedy=known.remedy)
    assert remedy in known.remedy


def test_gpus_are_explained_by_engine() -> None:
    said = 'could not select device driver "" with capabilities: [[gpu]]'
    known = explain_error(replace(SPEC, engine=Engine.DOCKER), f"docker: {said}")
    assert "nvidia-ctk runtime configure --runtime=docker" in known.remedy
