"""Pods of runs, without a cluster: what is made, and what is read of what a cluster says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.kubernetes.pod_job import PodJob
from orchestrator.adapters.kubernetes.pod_programs import pod_program
from orchestrator.adapters.transport.kubernetes.ending import EndingFilter
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.kubernetes.pod_health import Waiting, judge_pods
from orchestrator.core.kubernetes.run_pods import RunPods, job_name, job_set, pod_nodes
from orchestrator.core.kubernetes.settings import PodSettings
from orchestrator.core.model.pod_place import GROUP_LABEL, INDEX_LABEL, PodPlace
from orchestrator.core.model.request import RunRequest
from orchestrator.parsing.inputs.pods.pod_options import SERVICE_NAME
from orchestrator.parsing.replies import kubernetes_objects as objects
from orchestrator.parsing.replies.supervisor_records import BadRecord
from tests.core.world import request
from tests.kubernetes.cluster.cluster import wait_until
from tests.kubernetes.jobs import all_settings, requests
from tests.kubernetes.judges import check_object
from tests.time_limits import communicate, scaled

MARKER = "orchestrate-0123456789abcdef"
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "items metadata spec status name uid labels annotations conditions type "
                "reason message containerStatuses state running waiting terminated exitCode "
                "involvedObject kind "
                "ownerReferences suspend jobset.sigs.k8s.io/replicatedjob-name "
                "batch.kubernetes.io/job-completion-index contexts clusters cluster context".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.processes
def test_a_removal_is_given_up_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an API server that does not answer: each question alone may take half a minute."""
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("orchestrator.adapters.kubernetes.pod_job.LAST_LOOK_S", 0.2)
    pods = RunPods(settings=PodSettings(name="run-x", image="i"))
    asked = request("n1")
    nodes = pod_nodes(asked.cluster.workers, pods)
    asked = replace(asked, cluster=replace(asked.cluster, nodes=nodes))

    async def remove() -> tuple[str, ...]:
        async with asyncio.timeout(scaled(15)):
            return await PodJob(asked, pods, lambda _: None).remove(0.3)

    (left,) = asyncio.run(remove())
    assert left == "JobSet run-x: the API server had no answer within 0.3 s"


def in_pods(request: RunRequest, pod_settings: PodSettings) -> tuple[RunRequest, RunPods]:
    pods = RunPods(settings=pod_settings)
    nodes = pod_nodes(request.cluster.workers, pods)
    return replace(request, cluster=replace(request.cluster, nodes=nodes)), pods


@settings(max_examples=40)
@given(request=requests(), pod_settings=all_settings())
def test_the_job_set_is_one_that_an_api_server_takes(
    request: RunRequest, pod_settings: PodSettings
) -> None:
    """Each node has exactly one pod, and asks for its GPUs; no variable of a rank is in it."""
    asked, pods = in_pods(request, pod_settings)

    made = job_set(asked, pods, "pass")

    check_object(made)
    jobs = made["spec"]["replicatedJobs"]  # type: ignore[index]
    numbered = [
        (job["name"], index, job["template"]["spec"]["template"]["spec"]["containers"][0])
        for job in jobs
        for index in range(job["template"]["spec"]["completions"])
    ]
    for spec, (group, index, container) in zip(asked.cluster.workers, numbered, strict=True):
        assert spec.pod is not None
        assert (spec.pod.group, spec.pod.index) == (group, index)
        limits = container.get("resources", {}).get("limits", {})
        assert limits.get("nvidia.com/gpu", "0") == str(spec.gpus.count)
        assert "env" not in container


@given(st.text(max_size=300))
def test_every_run_has_a_name_that_pods_can_have(run_id: str) -> None:
    """With what the controllers add, at most 63 characters; other runs have other names."""
    name = job_name(run_id)

    assert SERVICE_NAME.fullmatch(name)
    assert len(f"{name}-nodes-99-0-9999-abcde") <= 63
    assert job_name(run_id + "x") != name


@given(
    data=st.binary(max_size=300) | st.just(f"a{MARKER}b{MARKER[:9]}\n".encode()),
    how=st.sampled_from([(b"E0", Exited(0)), (b"E77", Exited(77)), (b"S9", Signalled(9))]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    alive=st.lists(st.integers(0, 300), max_size=3),
)
def test_output_passes_unchanged_up_to_its_end(
    data: bytes, how: tuple[bytes, object], cuts: list[int], alive: list[int]
) -> None:
    """However it is cut on the way, and wherever signs of life stand in it."""
    sent = data
    for at in sorted((min(at, len(data)) for at in alive), reverse=True):
        sent = sent[:at] + f"{MARKER}~\n".encode() + sent[at:]
    sent += f"{MARKER}.".encode() + how[0] + b"\nwhat kubectl adds"
    ending, passed = EndingFilter(MARKER), b""
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(sent)], strict=True):
        passed += ending.feed(sent[start:stop])

    assert (passed + ending.release(), ending.outcome) == (data, how[1])


@given(data=st.binary(max_size=300))
def test_output_without_an_end_has_no_outcome(data: bytes) -> None:
    ending = EndingFilter(MARKER)

    assert ending.feed(data) + ending.release() == data
    assert ending.outcome is None


@settings(max_examples=300)
@given(value=JSON)
def test_whatever_an_api_server_says_is_read_or_refused(value: Any) -> None:
    """Nothing but ``BadRecord`` is raised, and no text can end a line of ours."""
    data = json.dumps(value).encode()
    readers = (
        objects.parse_pods,
        objects.parse_job,
        objects.parse_denied,
        objects.parse_context,
        lambda data: objects.parse_queue(data, "1"),
        lambda data: objects.parse_warnings(data, "run-1"),
    )
    for read in readers:
        try:
            found = read(data)
        except BadRecord:
            continue
        assert "\\n" not in repr(found)


def one_pod(name: object, status: object = None) -> bytes:
    labels = {GROUP_LABEL: "nodes", INDEX_LABEL: "0"}
    pod = {"metadata": {"name": name, "labels": labels}, "status": status}
    return json.dumps({"items": [pod]}).encode()


@pytest.mark.parametrize("reason", [[], {}, 7, None])
def test_a_reason_may_be_anything(reason: object) -> None:
    (pod,) = objects.parse_pods(one_pod("run-1-nodes-0-0-abcde", {"reason": reason}))

    assert (pod.reason, pod.silent) == ("", False)


@pytest.mark.parametrize("name", ["--kubeconfig=/tmp/k", "-v9", "", "a b", "a/b", None])
def test_a_pods_name_is_no_option_of_kubectl(name: object) -> None:
    """It is a word of the command lines that reach the pod."""
    with pytest.raises(BadRecord, match="a pod is named"):
        objects.parse_pods(one_pod(name))


def test_a_stream_of_objects_is_bounded() -> None:
    with pytest.raises(BadRecord, match="more than"):
        objects.read_stream(b"{} " * (objects.MAX_OBJECTS + 1))


@given(data=st.binary(max_size=100))
def test_what_is_no_json_is_refused(data: bytes) -> None:
    try:
        json.loads(data)
    except ValueError:
        with pytest.raises(BadRecord):
            objects.parse_pods(data)


def test_a_pod_that_cannot_mount_its_volumes_says_so() -> None:
    """The reason is in a warning alone; it is part of what is waited for."""
    pods = [
        {
            "metadata": {
                "name": "run-1-nodes-0-0-abcde",
                "labels": {GROUP_LABEL: "nodes", INDEX_LABEL: "0"},
            },
            "spec": {"nodeName": "machine-1"},
            "status": {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}],
            },
        }
    ]
    warnings = [
        {
            "involvedObject": {"name": "run-1-nodes-0-0-abcde"},
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "work"',
            "lastTimestamp": "2026-12-01T00:00:00Z",
        }
    ]
    place = PodPlace(job="run-1", group="nodes", index=0)

    verdict = judge_pods(
        objects.parse_pods(json.dumps({"items": pods}).encode()),
        [place],
        objects.parse_warnings(json.dumps({"items": warnings}).encode(), "run-1"),
    )

    assert isinstance(verdict, Waiting)
    assert 'FailedMount: MountVolume.SetUp failed for volume "work"' in verdict.text
    assert not verdict.queued


@pytest.mark.processes
def test_a_pod_ends_when_kubernetes_asks_it_to() -> None:
    """Its first process lets those end that it took in, and ends itself."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-I"]
    words += ["-S", "-c", pod_program("hold"), "600"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = _child(process.pid)

    os.kill(first, signal.SIGTERM)
    out, err = communicate(process, 20)

    assert (process.returncode, out, err) == (143, "", "")


@pytest.mark.processes
def test_a_pod_that_nobody_needs_ends_by_itself() -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-I"]
    process = subprocess.Popen([*words, "-S", "-c", pod_program("hold"), "0.1"])

    assert process.wait(timeout=60) == 0


def _child(pid: int) -> int:
    """The first process below, once its handlers are there."""

    def handling() -> bool:
        found = _children(pid)
        return bool(found) and _catches(found[0], signal.SIGTERM)

    wait_until(handling, "a handler of SIGTERM")
    return _children(pid)[0]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _catches(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
