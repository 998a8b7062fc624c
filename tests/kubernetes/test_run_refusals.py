"""Runs in pods that get none: what, where, why, and the next command; nothing is left of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.contracts.transport.conditions import is_alive
from tests.kubernetes.cluster.cluster import Cluster, raise_cluster

pytestmark = pytest.mark.processes

# Exit code and the result, if the run came to one.
Run = Callable[..., tuple[int, dict[str, Any]]]
JOBSETS = "jobsets.jobset.x-k8s.io"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two machines on which no container of these tests is ever started."""
    with raise_cluster({"m1": ["false"], "m2": ["false"]}) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        yield cluster


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``orchestrate run`` of a script in pods of a cluster with two nodes."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text("name: lab\ndefaults: {gpus: 1}\nnodes: ['n[1-2]']\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "job.py").write_text("print('never')\n")

    def run(*options: str, image: str = "registry/image:1") -> tuple[int, dict[str, Any]]:
        fixed = ["--cluster", "lab.yaml", "--workdir", "project", "--run-id", "r1", "--json"]
        pods = ["--launcher", "kubernetes", *(["--pod-image", image] if image else [])]
        code = main(["run", *fixed, *pods, *options, "--", "project/job.py"])
        said = capsys.readouterr()
        lines = [json.loads(line) for line in said.out.splitlines() if line.startswith("{")]
        results = [line for line in lines if line["type"] == "result"]
        return code, results[-1] if results else {"err": said.err, "lines": lines}

    return run


def failure_of(ended: tuple[int, dict[str, Any]], code: int) -> dict[str, Any]:
    assert ended[0] == code, ended
    assert ended[1]["exit_code"] == code
    failure = ended[1]["failure"]
    assert isinstance(failure, dict)
    return failure


def test_kubectl_that_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    failure = failure_of(run(), 4)

    assert failure["id"] == "OR-KUBE-001"
    assert "kubectl is not here" in failure["cause"]
    assert "kubectl cluster-info" in failure["remedy"]


# Bounded however it behaves: nothing of it is left, and what is said of it has a next command.
@pytest.mark.parametrize(
    "text, said",
    [
        (
            "#!/nonexistent\n",
            ("OR-KUBE-001", "kubectl cannot be started", "kubectl version --client"),
        ),
        (
            "#!/bin/sh\necho yes\n",
            ("OR-KUBE-006", "kubectl printed no JSON", "kubectl version"),
        ),
        (
            "#!/bin/sh\nsleep 61 &\necho $! > $0.child\nwait\n",
            ("OR-KUBE-003", "kubectl config view had no answer within 1 s", "kubectl cluster-info"),
        ),
    ],
)
def test_a_kubectl_that_is_of_no_use(
    text: str, said: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.adapters.kubernetes.pod_job.PATIENCE_S", 0)
    monkeypatch.setattr("orchestrator.adapters.kubernetes.kubectl.ASK_S", 1)
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    failure = failure_of(run(), 4)

    shown = (failure["id"], failure["cause"], failure["remedy"])
    assert all(part in text for part, text in zip(said, shown, strict=True)), shown
    child = program.with_suffix(".child")
    if child.exists():  # such as a plug-in that asks for a password
        assert not is_alive(int(child.read_text()))


@pytest.mark.parametrize("verb", ["plan", "explain"])
def test_before_the_run_there_is_no_node_to_ask(
    verb: str, run: Run, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    del run  # its folder
    words = ["-C", "lab.yaml", "--workdir", "project", "--pod-image", "registry/image:1"]
    words += ["--pod-queue", "gpus"]
    script = ["--", "project/job.py"]

    for options in ([], ["--offline"]):
        assert main([verb, *words, *options, *script]) == 0
        told = capsys.readouterr().out
        assert "ASSUMED" in told
        if verb == "plan":
            assert "  launcher kubernetes, in its pods direct: " in told
            assert "\n  image: registry/image:1\n" in told
            assert "\n  queue: gpus\n" in told
    assert cluster.api.asked == []


@pytest.mark.parametrize(
    "kubeconfig, options",
    [("{}", ()), (None, ("--pod-context", "elsewhere")), ("no: [yaml", ())],
)
def test_a_context_that_is_missing(
    kubeconfig: str | None,
    options: tuple[str, ...],
    run: Run,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    if kubeconfig is not None:
        (tmp_path / "kubeconfig").write_text(kubeconfig)

    failure = failure_of(run(*options), 4)

    assert failure["id"] == "OR-KUBE-002"
    assert "kubectl config get-contexts" in failure["remedy"]
    assert cluster.api.asked == []


def test_an_api_server_that_does_not_answer(run: Run, cluster: Cluster) -> None:
    cluster.api.close()

    failure = failure_of(run(), 4)

    assert failure["id"] == "OR-KUBE-003"
    assert "kubectl cluster-info" in failure["remedy"]


def test_verbs_that_are_forbidden_are_named_before_anything_is_made(
    run: Run, cluster: Cluster
) -> None:
    """Also the one that is needed only once the pods run."""
    cluster.api.denied |= {("create", "pods/exec"), ("delete", "jobsets")}

    failure = failure_of(run(), 4)

    assert failure["id"] == "OR-KUBE-004"
    assert "may not delete jobsets, create pods/exec in namespace lab" in failure["cause"]
    assert f"kubectl auth can-i delete {JOBSETS}" in failure["remedy"]
    assert ("create", "jobsets") not in cluster.api.asked


def test_a_namespace_that_is_not_there(run: Run, cluster: Cluster) -> None:
    """Its verbs are allowed to who may do everything everywhere."""
    failure = failure_of(run("--pod-namespace", "labs"), 4)

    assert failure["id"] == "OR-KUBE-006"
    assert 'namespaces "labs" not found' in failure["cause"]
    assert "--pod-namespace" in failure["remedy"]
    assert cluster.names("jobsets") == []


def test_a_cluster_without_jobset(run: Run, cluster: Cluster) -> None:
    cluster.api.absent.add("jobset.x-k8s.io")

    failure = failure_of(run(), 4)

    assert failure["id"] == "OR-KUBE-005"
    assert "https://jobset.sigs.k8s.io" in failure["remedy"]


def test_a_quota_that_is_used_up_is_busy(run: Run, cluster: Cluster) -> None:
    cluster.quota = False

    failure = failure_of(run("--pod-queue", "gpus", "--wait", "1"), 75)

    assert failure["id"] == "OR-KUBE-007"
    assert "queue gpus: couldn't assign flavors" in failure["cause"]
    assert "insufficient quota for nvidia.com/gpu" in failure["cause"]
    assert "--wait SECONDS" in failure["remedy"]
    assert cluster.names("jobsets") == []


def test_pods_that_fit_nowhere_are_busy(run: Run, cluster: Cluster) -> None:
    cluster.unschedulable = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."

    failure = failure_of(run("--wait", "1"), 75)

    assert failure["id"] == "OR-KUBE-008"
    assert "0/2 nodes are available: 2 Insufficient nvidia.com/gpu." in failure["cause"]
    assert "kubectl describe pod" in failure["remedy"]
    assert (cluster.names("jobsets"), cluster.names("pods")) == ([], [])


def test_an_api_server_that_is_restarted_is_asked_again(run: Run, cluster: Cluster) -> None:
    """While a job waits, and while it is removed."""
    cluster.unschedulable = "no room"
    cluster.api.failing = 3

    failure = failure_of(run("--wait", "1"), 75)

    assert (failure["id"], cluster.api.failing) == ("OR-KUBE-008", 0)
    assert (cluster.names("jobsets"), cluster.names("pods")) == ([], [])


def test_an_image_that_cannot_be_pulled(run: Run, cluster: Cluster) -> None:
    """Not waited for until its time is up."""
    cluster.pull_error = 'Back-off pulling image "registry/image:1": not found'

    failure = failure_of(run(), 4)

    assert failure["id"] == "OR-KUBE-009"
    assert 'ImagePullBackOff: Back-off pulling image "registry/image:1"' in failure["cause"]
    assert "--pod-image" in failure["remedy"]
    assert (cluster.names("jobsets"), cluster.names("pods")) == ([], [])


def test_pods_that_nobody_makes(run: Run, cluster: Cluster) -> None:
    """As when the controller of JobSets is down."""
    cluster.stuck = True

    failure = failure_of(run("--wait", "1"), 4)

    assert failure["id"] == "OR-KUBE-010"
    assert "2 pods of run-r1-" in failure["cause"]
    assert "is the JobSet controller there?" in failure["remedy"]


def test_a_name_that_another_run_has_taken(run: Run, cluster: Cluster) -> None:
    """What others made is neither used nor removed."""
    from orchestrator.core.kubernetes.run_pods import job_name

    theirs = {"kind": "JobSet", "apiVersion": "jobset.x-k8s.io/v1alpha2", "spec": {}}
    cluster.api.objects["jobsets"][job_name("r1")] = {
        **theirs,
        "metadata": {"name": job_name("r1"), "uid": "1"},
    }

    failure = failure_of(run(), 4)

    assert failure["id"] == "OR-KUBE-012"
    assert "--run-id" in failure["remedy"]
    assert cluster.names("jobsets") == [job_name("r1")]


@pytest.mark.parametrize(
    "options, said",
    [
        (("--pod-resource", "cpu=many"), "cpu: no quantity: 'many'"),
        (("--pod-resource", "cpu=1", "--pod-resource", "cpu=2"), "cpu was given twice: 1 and 2"),
        (("--pod-resource", "nvidia.com/gpu=1"), "the inventory says how many GPUs"),
        (("--pod-selector", "zone"), "no label: 'zone'"),
        (("--pod-namespace", "No"), "no name of an object: 'No'"),
        (("--pod-network", "mesh"), "neither pod nor host"),
        (("--pod-idle", "soon"), "expected seconds"),
        (("--pod-context=-x",), "no name of a context"),
        (("--pod-idle", "1"), "expected seconds, 60 to"),
    ],
)
def test_options_are_checked_before_any_contact(
    options: tuple[str, ...], said: str, run: Run, cluster: Cluster
) -> None:
    code, shown = run(*options)

    assert (code, cluster.api.asked) == (2, [])
    assert said in json.dumps(shown)


def test_an_image_is_needed(run: Run, cluster: Cluster) -> None:
    code, shown = run(image="")

    assert (code, cluster.api.asked) == (2, [])
    assert "--pod-image registry/name:tag" in json.dumps(shown)


def test_what_cannot_be_removed_is_named(
    run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later ``stop`` tries again."""
    monkeypatch.setattr("orchestrator.adapters.kubernetes.run_job.SWEEP_S", 0)
    cluster.unschedulable = "no room"
    cluster.api.on_deleted = lambda *_: None  # a finalizer that keeps the JobSet

    code, result = run("--wait", "1", "--budget", "clean=1", "--budget", "grace=1")

    assert code == 75
    assert any("not removed: JobSet run-r1-" in text for text in result["warnings"])
    assert {node["state"] for node in result["nodes"]} == {"dirty"}
    cluster.restore()
    assert main(["stop", "r1"]) == 0
    assert (cluster.names("jobsets"), cluster.names("pods")) == ([], [])
