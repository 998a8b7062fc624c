"""Jobs of any kind that can be exported, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from orchestrator.core.base.command import Secret, Text
from orchestrator.core.kubernetes.pods import find_obstacle
from orchestrator.core.kubernetes.settings import CodePlace, PodSettings, Toleration
from orchestrator.core.model.captures import Capture, CaptureKind
from orchestrator.core.model.inventory import Cluster, GpuSpec, NodeSpec, PythonSpec, SshEndpoint
from orchestrator.core.model.plan import Budgets
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Job, Per, Ranks, Shape, Workload

DIGEST = "0123456789abcdef" * 2 + "01234567"
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
# What means something to Kubernetes, to YAML, or to the agent that fills in placeholders.
VALUES = WORDS | st.sampled_from(["$(HOME)", "$$", "${A}", "{output}/x", "yes", "***x", "a: #b"])
NAMES = st.sampled_from(["A", "NCCL_DEBUG", "OMP_NUM_THREADS", "PATH", "LD_PRELOAD", "x_1"])


@st.composite
def _nodes(draw: st.DrawFn) -> tuple[NodeSpec, ...]:
    kinds = draw(st.lists(st.sampled_from([0, 1, 4, 8]), min_size=1, max_size=5))
    alike = draw(st.booleans())
    env = draw(st.dictionaries(NAMES, VALUES, max_size=2))
    return tuple(
        NodeSpec(
            name=f"n{number}",
            ssh=SshEndpoint(host=f"n{number}"),
            gpus=GpuSpec(count=kinds[0] if alike else gpus),
            python=PythonSpec(value="/opt/of/the/node/python"),
            env={} if number % 2 and not alike else env,
        )
        for number, gpus in enumerate(kinds)
    )


def _workloads() -> st.SearchStrategy[Workload]:
    return st.builds(
        Workload,
        name=st.sampled_from(["finetune", "tp_check"]),
        source=st.just("-"),
        folder=st.just("/work"),
        entry=st.just("job.py"),
        own_code=st.booleans(),
        program=st.sampled_from([(), ("./run.sh", "{output}", "$HOME")]),
        shape=st.sampled_from([Shape.RIGID, Shape.INDEPENDENT, Shape.LOCAL_ROUNDS]),
        ranks=st.builds(Ranks, per=st.sampled_from(Per), cpu=st.integers(1, 2)),
    )


@st.composite
def requests(draw: st.DrawFn) -> RunRequest:
    """Requests that ``find_obstacle`` has nothing against."""
    texts: st.SearchStrategy[Text] = VALUES | VALUES.map(Secret)
    request = RunRequest(
        run_id="planned",
        cluster=Cluster(name="lab", source="lab.yaml", nodes=draw(_nodes())),
        job=Job(workload=draw(_workloads()), arguments=tuple(draw(st.lists(VALUES, max_size=2)))),
        launcher=draw(st.sampled_from(["auto", "torchrun", "direct", "manual", "command"])),
        ranks_per_node=draw(st.none() | st.integers(1, 3)),
        budgets=Budgets(grace_s=draw(st.floats(1, 60)), run_s=draw(st.none() | st.floats(1, 60))),
        code=DIGEST,
        entry="job.py",
        env=draw(st.dictionaries(NAMES, texts, max_size=3)),
        captures=(Capture(kind=CaptureKind.POWER),) if draw(st.booleans()) else (),
    )
    assert find_obstacle(request, PodSettings(name="j", image="i"), probing=False) is None
    return request


def all_settings() -> st.SearchStrategy[PodSettings]:
    """Settings of jobs that end; servers have tests of their own."""
    return st.builds(
        PodSettings,
        name=st.sampled_from(["finetune", "a", "x-1"]),
        image=st.just("registry/image@sha256:0"),
        python=st.sampled_from(["python3", "/opt/venv/bin/python"]),
        namespace=st.sampled_from(["", "team"]),
        resources=st.sampled_from([{}, {"cpu": "32", "memory": "200Gi", "rdma/hca": "1"}]),
        node_selector=st.sampled_from([{}, {"gpu.product": "H100"}]),
        tolerations=st.sampled_from([(), (Toleration(key="a/b", value="", effect="NoExecute"),)]),
        pull_secret=st.sampled_from(["", "registry"]),
        code=st.just(CodePlace.CONFIGMAP) | st.just(CodePlace.IMAGE),
        results=st.sampled_from(["", "kept"]),
        queue=st.sampled_from(["", "gpus"]),
        host_network=st.booleans(),
        port=st.sampled_from([29500, 4000]),
    )
