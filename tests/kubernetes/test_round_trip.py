"""Nothing is lost between a plan and the pods that run it, through YAML and back."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings

from orchestrator.adapters.kubernetes.pod_files import RUN, plan_files
from orchestrator.core.base.codec import from_json, to_json
from orchestrator.core.base.command import Secret
from orchestrator.core.kubernetes.manifests import config_map, job_manifests
from orchestrator.core.kubernetes.settings import PodSettings
from orchestrator.core.kubernetes.yaml_text import render_yaml
from orchestrator.core.model.plan import NodePlan, Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.engine.node.requests import agent_process
from orchestrator.node_agent.kubernetes.pod_plan import INTERFACE, LEADER, PodPlan
from orchestrator.node_agent.kubernetes.pod_start import node_rank
from tests.core.world import request as request_for
from tests.kubernetes.exported import container_env, plan_for_pods, pod_specs, read_objects
from tests.kubernetes.jobs import all_settings, requests

# What the controller adds to the container's variables.
INDEXES = {"JOB_COMPLETION_INDEX", "LWS_WORKER_INDEX"}
SOME = PodSettings(name="job", image="image")
Objects = Mapping[str, dict[str, Any]]


def exported(request: RunRequest, plan: Plan, pods: PodSettings) -> Objects:
    """The objects of the job, through YAML; without the agent and the code, which are bytes."""
    objects = [*job_manifests(plan, pods, request.job.workload.shape)]
    objects.append(config_map(pods, "plan", {RUN: plan_files(request, plan)[RUN]}))
    return read_objects("---\n".join(render_yaml(each.document, each.head) for each in objects))


def read_run(objects: Objects, pods: PodSettings) -> dict[str, Any]:
    """What the ConfigMap says to all pods."""
    data = objects[f"ConfigMap/{pods.name}-plan"]["binaryData"][RUN]
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(data)))
    return found


def secrets_of(share: NodePlan) -> dict[str, str]:
    """What the Secret of the job has to hold."""
    return {v.name: v.value.reveal() for v in share.env if isinstance(v.value, Secret)}


def as_read_again(plan: Plan) -> Plan:
    """With stars in the place of secrets."""
    again: Plan = from_json(Plan, to_json(plan))
    return again


@settings(max_examples=40)
@given(requests(), all_settings())
def test_each_pod_launches_what_an_agent_would_be_asked_for(
    request: RunRequest, pods: PodSettings
) -> None:
    """Processes with their ranks, arguments, order and every variable; budgets, GPUs, captures."""
    planned, plan = plan_for_pods(request, pods)
    objects = exported(planned, plan, pods)

    for share, spec in zip(plan.nodes, pod_specs(objects), strict=True):
        env = container_env(spec, secrets_of(share))
        rank = node_rank(spec["containers"][0]["command"][-1], env)
        launch = PodPlan(read_run(objects, pods), rank).launch_request({}, env, {})

        assert (launch["node"], rank) == (share.name, share.node_rank)
        assert [_without_indexes(process) for process in launch["processes"]] == [
            agent_process(share.env, process) for process in share.processes
        ]
        assert launch["gpus"] == list(share.gpus)
        assert launch["own_copy"] is request.job.workload.own_code
        assert launch["captures"] == [capture.kind.value for capture in request.captures]
        assert (launch["grace_s"], launch["snapshot"]) == (request.budgets.grace_s, request.code)


def _without_indexes(process: dict[str, Any]) -> dict[str, Any]:
    return {**process, "env": {k: v for k, v in process["env"].items() if k not in INDEXES}}


@settings(max_examples=40)
@given(requests(), all_settings())
def test_what_was_exported_plans_again_to_the_same(request: RunRequest, pods: PodSettings) -> None:
    """The ConfigMap has the request and the plan; only secrets are not in them."""
    planned, plan = plan_for_pods(request, pods)
    found = read_run(exported(planned, plan, pods), pods)

    assert from_json(Plan, found["plan"]) == as_read_again(plan)
    _, second = plan_for_pods(from_json(RunRequest, found["request"]), pods)
    assert second == as_read_again(plan)


@settings(max_examples=20)
@given(requests(), all_settings())
def test_no_secret_is_in_any_object(request: RunRequest, pods: PodSettings) -> None:
    """Pods take it from a Secret that somebody else makes."""
    value = "geheim-4711"
    asked = replace(request, env={**request.env, "TOKEN": Secret(value)})
    objects = exported(*plan_for_pods(asked, pods), pods)

    assert value not in json.dumps(objects)
    assert value not in json.dumps(read_run(objects, pods))
    for spec in pod_specs(objects):
        (entry,) = (v for v in spec["containers"][0]["env"] if v["name"] == "TOKEN")
        reference = {"name": f"{pods.name}-secrets", "key": "TOKEN"}
        assert entry == {"name": "TOKEN", "valueFrom": {"secretKeyRef": reference}}


def test_a_pod_puts_in_what_only_it_knows() -> None:
    """The address of the leader and its own interface, in arguments and variables alike."""
    servers = replace(SOME, serves=8000)
    objects = exported(*plan_for_pods(request_for("n0", "n1"), servers), servers)
    pod = PodPlan(read_run(objects, servers), 1)

    assert pod.meeting_point == LEADER
    places = {LEADER: "job-0.job", INTERFACE: "eth7"}
    env = container_env(pod_specs(objects)[1])
    (process,) = pod.launch_request(places, env, {})["processes"]
    assert "--master-addr=job-0.job" in process["argv"]
    assert process["env"]["GLOO_SOCKET_IFNAME"] == "eth7"


def test_edited_manifests_count() -> None:
    """A variable that somebody adds reaches the ranks, one that somebody changes is in force, and
    none can pretend to be another run.
    """
    objects = exported(*plan_for_pods(request_for("n0"), SOME), SOME)
    edited = {"MINE": "1", "PYTHONPATH": "/elsewhere", "ORCHESTRATE_RUN_ID": "forged"}

    launch = PodPlan(read_run(objects, SOME), 0).launch_request({}, edited, {})

    (process,) = launch["processes"]
    assert process["env"]["MINE"] == "1"
    assert process["env"]["PYTHONPATH"] == "/elsewhere"
    assert "ORCHESTRATE_RUN_ID" not in process["env"]
