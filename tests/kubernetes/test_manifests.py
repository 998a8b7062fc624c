"""What is exported is what the API servers of JobSet, LeaderWorkerSet and Kubernetes take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.adapters.kubernetes.pod_files import plan_files
from orchestrator.core.base.command import Secret
from orchestrator.core.kubernetes.manifests import config_map, job_manifests
from orchestrator.core.kubernetes.pods import find_misfit, group_pods
from orchestrator.core.kubernetes.settings import CodePlace, PodSettings, Toleration
from orchestrator.core.kubernetes.yaml_text import render_yaml
from orchestrator.core.model.facts import Hca
from orchestrator.core.model.inventory import GpuSpec
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Shape
from tests.core.world import facts, node_spec
from tests.core.world import request as request_for
from tests.kubernetes.exported import plan_for_pods, pod_specs, read_objects
from tests.kubernetes.jobs import all_settings, requests
from tests.kubernetes.judges import Refused, check_object

SOME = PodSettings(name="job", image="registry/torch:2.13")
EVERY = replace(
    SOME,
    namespace="team",
    resources={"cpu": "32", "memory": "200Gi", "rdma/hca": "1"},
    node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    tolerations=(
        Toleration(key="nvidia.com/gpu", effect="NoSchedule"),
        Toleration(key="team", value="blue"),
    ),
    pull_secret="registry",
    results="kept",
    queue="gpus",
    host_network=True,
)


def with_gpus(*counts: int) -> RunRequest:
    """A request for nodes with so many GPUs each."""
    asked = request_for()
    nodes = tuple(node_spec(f"n{i}", GpuSpec(count=count)) for i, count in enumerate(counts))
    return replace(asked, cluster=replace(asked.cluster, nodes=nodes), code="0" * 40)


def text_of(plan: Plan, pods: PodSettings, shape: Shape = Shape.RIGID) -> str:
    """The stream of all objects but the ConfigMaps."""
    made = job_manifests(plan, pods, shape)
    return "---\n".join(render_yaml(each.document, each.head) for each in made)


def objects_of(
    request: RunRequest, pods: PodSettings, shape: Shape = Shape.RIGID
) -> dict[str, dict[str, Any]]:
    """The same, read again."""
    return read_objects(text_of(plan_for_pods(request, pods)[1], pods, shape))


@settings(max_examples=40)
@given(requests(), all_settings())
def test_every_job_set_fits_its_published_schema(request: RunRequest, pods: PodSettings) -> None:
    """Whatever job, cluster and options."""
    for found in objects_of(request, pods).values():
        check_object(found)


@pytest.mark.parametrize("counts", [(8, 8), (4, 8, 8)], ids=["alike", "leader-differs"])
@pytest.mark.parametrize("pods", [SOME, EVERY], ids=["some", "every"])
def test_every_set_of_servers_fits_its_schema(counts: tuple[int, ...], pods: PodSettings) -> None:
    servers = replace(pods, serves=8000, replicas=3)

    found = objects_of(with_gpus(*counts), servers)

    assert list(found) == ["LeaderWorkerSet/job", "Service/job-serve"]
    for each in found.values():
        check_object(each)
    group = found["LeaderWorkerSet/job"]["spec"]["leaderWorkerTemplate"]
    assert group["size"] == len(counts)
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pod_specs(found)]
    assert [limit["nvidia.com/gpu"] for limit in limits] == [str(count) for count in counts]


def test_config_maps_fit_their_schema() -> None:
    made = config_map(SOME, "plan", plan_files(*plan_for_pods(with_gpus(1), SOME)))

    (found,) = read_objects(render_yaml(made.document)).values()

    check_object(found)


@pytest.mark.parametrize(
    "place, value",
    [
        (("spec", "replicatedJobs", 0, "template", "spec", "completions"), "2"),
        (("spec", "replicatedJobs", 0, "template", "spec", "completionmode"), "Indexed"),
        (("spec", "network", "enableDNSHostname"), True),
        (
            ("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "hostnetwork"),
            True,
        ),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) else "",
)
def test_the_judge_refuses_what_an_api_server_would(place: tuple[Any, ...], value: object) -> None:
    """Wrong types and unknown fields, or the tests above could not fail."""
    found = objects_of(with_gpus(1, 1), SOME)["JobSet/job"]
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value

    with pytest.raises(Refused):
        check_object(found)


def test_pods_that_differ_get_templates_of_their_own() -> None:
    """Node ranks count on, and all meet at the first pod's name."""
    found = objects_of(with_gpus(8, 8, 4, 8), SOME)["JobSet/job"]

    jobs = {job["name"]: job["template"]["spec"] for job in found["spec"]["replicatedJobs"]}
    assert {name: job["completions"] for name, job in jobs.items()} == {
        "nodes": 2,
        "nodes-2": 1,
        "nodes-3": 1,
    }
    containers = [job["template"]["spec"]["containers"][0] for job in jobs.values()]
    assert [container["command"][-1] for container in containers] == ["0", "2", "3"]
    _, plan = plan_for_pods(with_gpus(8, 8, 4, 8), SOME)
    assert plan.rendezvous is not None
    assert plan.rendezvous.address == "job-nodes-0-0.job"


def test_the_environment_says_why() -> None:
    """What follows from what the nodes were found to have, as over SSH, each with its reason."""
    hcas = (
        Hca(name="mlx5_0", port=1, state="ACTIVE", link_layer="InfiniBand", rate_gbit=400.0),
        Hca(name="mlx5_1", port=1, state="DOWN", link_layer="InfiniBand"),
    )
    found = {name: replace(facts(name, gpus=8), hcas=hcas) for name in ("n0", "n1")}
    asked = replace(with_gpus(8, 8), env={"TOKEN": Secret("x"), "NCCL_ALGO": "$RING"})

    text = text_of(plan_for_pods(asked, SOME, found)[1], SOME)

    assert "# 2 ranks" not in text
    assert "# 16 ranks in 2 pods, launcher torchrun: a Python script" in text
    assert "# the Secret job-secrets has to be there" in text
    lines = [line.strip() for line in text.splitlines()]
    hca = lines.index("- name: NCCL_IB_HCA")
    assert lines[hca - 1].endswith("[hca-exact-list]"), lines[hca - 1]
    assert 'value: "$$RING"' in lines
    assert "- IPC_LOCK" in lines


def test_a_pod_asks_for_what_its_node_has() -> None:
    found = objects_of(with_gpus(8), EVERY)["JobSet/job"]

    (pod,) = pod_specs({"JobSet/job": found})
    assert pod["containers"][0]["resources"]["limits"] == {
        "nvidia.com/gpu": "8",
        "cpu": "32",
        "memory": "200Gi",
        "rdma/hca": "1",
    }
    assert pod["nodeSelector"] == EVERY.node_selector
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "value": "blue"},
    ]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["hostNetwork"] is True
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    work = next(volume for volume in pod["volumes"] if volume["name"] == "work")
    assert work["persistentVolumeClaim"]["claimName"] == "kept"
    env = {v["name"]: v["value"] for v in pod["containers"][0]["env"]}
    assert env["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize("place", CodePlace)
def test_code_is_mounted_where_it_is_looked_for(place: CodePlace) -> None:
    (pod,) = pod_specs(objects_of(with_gpus(1), replace(SOME, code=place, claim="code-claim")))

    mounted = [m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] == "code"]
    expected = {
        CodePlace.CONFIGMAP: ["/orchestrate/code/0000000000000000"],
        CodePlace.CLAIM: ["/orchestrate/code"],
        CodePlace.IMAGE: [],
    }
    assert mounted == expected[place]


def test_names_that_hosts_cannot_have_and_groups_that_differ_are_refused() -> None:
    long = replace(SOME, name="a" * 48)
    groups = group_pods(plan_for_pods(with_gpus(1, 1), long)[1])
    differing = group_pods(plan_for_pods(with_gpus(1, 1, 2), SOME)[1])

    assert find_misfit(groups, replace(long, name="a" * 47)) is None
    misfit = find_misfit(groups, long)
    assert misfit is not None
    assert "too long" in misfit.message
    assert find_misfit(differing, SOME) is None
    servers = find_misfit(differing, replace(SOME, serves=8000))
    assert servers is not None
    assert "these nodes differ" in servers.message


@pytest.mark.parametrize("shape, index", [(Shape.RIGID, "0"), (Shape.INDEPENDENT, None)])
def test_the_service_finds_the_servers(shape: Shape, index: str | None) -> None:
    """The leader's where ranks belong together, else every pod's."""
    service = objects_of(with_gpus(1, 1), replace(SOME, serves=8000), shape)["Service/job-serve"]

    selector = service["spec"]["selector"]
    assert selector.get("leaderworkerset.sigs.k8s.io/worker-index") == index
    assert selector["leaderworkerset.sigs.k8s.io/name"] == "job"
