"""What becomes of the objects: Kueue, the JobSet and Job controllers, the scheduler, the kubelet.

Containers really run (``machine.py``), one machine for each pod. What a cluster may refuse or lose
is set by the test.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kubernetes.cluster.api_server import ApiServer
from tests.kubernetes.cluster.machine import Container, start_container
from tests.kubernetes.cluster.websocket import CLOSE, STATUS, STDERR, STDIN, STDOUT, Channels

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
GROUP_LABEL = "jobset.sigs.k8s.io/replicatedjob-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
POLL_S = 0.05
CHUNK = 65536
# How a test's machine executes a command; by the machine's name.
Machines = Mapping[str, Sequence[str]]


class Cluster:
    """``quota``: False lets jobs with a queue wait. ``pull_error``, ``unschedulable``: the message
    for every pod; empty = none.
    """

    def __init__(self, machines: Machines) -> None:
        self.api = ApiServer()
        self.api.on_created = self._created
        self.api.on_deleted = self._deleted
        self.api.on_exec = self._execute
        self.quota = True
        self.pull_error = ""
        self.unschedulable = ""
        self.stuck = False
        self._machines = machines
        self._containers: dict[str, Container] = {}
        self._streams: dict[str, list[Channels]] = {}
        self._frozen: set[str] = set()
        self._closing = threading.Event()
        self._kubelet = threading.Thread(target=self._watch, daemon=True)
        self._kubelet.start()

    def kubeconfig(self, path: Path) -> Path:
        """A file that names this cluster as the context ``test``."""
        return write_kubeconfig(path, self.api.address)

    def names(self, resource: str) -> list[str]:
        with self.api.lock:
            return sorted(self.api.objects[resource])

    def restore(self) -> None:
        """Objects are removed again when they are deleted."""
        self.api.on_deleted = self._deleted

    def admit(self) -> None:
        """Kueue finds room for whoever waits."""
        with self.api.lock:
            self.quota = True
            for job in list(self.api.objects["jobsets"].values()):
                if job["spec"].get("suspend"):
                    job["spec"]["suspend"] = False
                    self._make_pods(job)

    def end_pod(self, name: str, reason: str, message: str) -> None:
        """As when the kubelet evicts a pod: its processes are killed, the object stays."""
        with self.api.lock:
            pod = self.api.objects["pods"][name]
            pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}
            pod["status"]["containerStatuses"] = []
            container = self._containers.pop(name)
        container.kill()
        self._cut(name)

    def thaw(self, name: str) -> None:
        """The machine is back: its kubelet learns what it missed, and ends what was deleted."""
        self._frozen.discard(name)
        self._containers[name].kill()

    def freeze(self, name: str) -> None:
        """As when a machine is lost: nothing more is heard of it, and no connection ends."""
        self._frozen.add(name)
        for stream in self._streams.get(name, []):
            stream.flowing.clear()
        with self.api.lock:
            ready = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
            self.api.objects["pods"][name]["status"]["conditions"] = [ready]

    def cut_streams(self, name: str) -> None:
        """As when the API server is restarted: every stream breaks, the pod lives on."""
        self._cut(name)

    def processes(self) -> list[int]:
        """The first processes of all containers."""
        return [container.init for container in self._containers.values()]

    def close(self) -> None:
        self._closing.set()
        self._kubelet.join()
        for name in list(self._containers):
            self._containers.pop(name).kill()
            self._cut(name)
        self.api.close()

    # Controllers ------------------------------------------------------------------------------

    def _created(self, resource: str, made: dict[str, Any]) -> None:
        if resource != "jobsets":
            return
        queue = made["metadata"].get("labels", {}).get(QUEUE_LABEL)
        if queue and not self.quota:
            made["spec"]["suspend"] = True
            self._queue(made, queue)
            return
        self._make_pods(made)

    def _queue(self, job: dict[str, Any], queue: str) -> None:
        message = "couldn't assign flavors to pod set nodes: insufficient quota for nvidia.com/gpu"
        reserved = {
            "type": "QuotaReserved",
            "status": "False",
            "reason": "Pending",
            "message": message,
        }
        name = f"jobset-{job['metadata']['name']}"
        owner = {"kind": "JobSet", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        self.api.objects["workloads"][name] = {
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"queueName": queue},
            "status": {"conditions": [reserved]},
        }

    def _make_pods(self, job: dict[str, Any]) -> None:
        if self.stuck:
            return
        machines = iter(self._machines)
        for replicated in job["spec"]["replicatedJobs"]:
            spec = replicated["template"]["spec"]
            for index in range(spec["completions"]):
                self._make_pod(job, replicated["name"], index, spec["template"], next(machines))

    def _make_pod(
        self, job: dict[str, Any], group: str, index: int, template: dict[str, Any], machine: str
    ) -> None:
        name = f"{job['metadata']['name']}-{group}-0-{index}-x7k2p"
        labels = {**template["metadata"]["labels"], GROUP_LABEL: group, INDEX_LABEL: str(index)}
        pod: dict[str, Any] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": "lab",
                "uid": f"uid-of-{name}",
                "labels": labels,
            },
            "spec": {**template["spec"]},
            "status": {"phase": "Pending", "conditions": []},
        }
        self.api.objects["pods"][name] = pod
        if self.unschedulable:
            pod["status"]["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": self.unschedulable,
                }
            ]
            return
        pod["spec"]["nodeName"] = machine
        if self.pull_error:
            waiting = {"reason": "ImagePullBackOff", "message": self.pull_error}
            pod["status"]["containerStatuses"] = [{"name": "ranks", "state": {"waiting": waiting}}]
            return
        (container,) = template["spec"]["containers"]
        env = {v["name"]: v["value"] for v in container.get("env", [])}
        claims = [v for v in template["spec"]["volumes"] if "persistentVolumeClaim" in v]
        paths = [m.get("subPath", "") for m in container["volumeMounts"] if m["name"] == "work"]
        kept = f"/run/claims/{paths[0]}" if claims else ""
        self._containers[name] = start_container(
            self._machines[machine], name, container["command"], env, kept
        )

    def _deleted(self, resource: str, name: str) -> None:
        with self.api.lock:
            if resource == "jobsets":
                del self.api.objects["jobsets"][name]
                self.api.objects["workloads"].pop(f"jobset-{name}", None)
                pods = [p for p in self.api.objects["pods"] if p.startswith(f"{name}-")]
            else:
                pods = [name] if resource == "pods" else []
            for pod in pods:
                self._delete_pod(pod)

    def _delete_pod(self, name: str) -> None:
        pod = self.api.objects["pods"][name]
        pod["metadata"]["deletionTimestamp"] = "2026-12-01T00:00:00Z"
        container = self._containers.get(name)
        if container is None:
            del self.api.objects["pods"][name]
            return
        if name in self._frozen:
            return
        container.signal(signal.SIGTERM)
        grace_s = pod["spec"]["terminationGracePeriodSeconds"]
        killing = threading.Timer(grace_s, container.kill)
        killing.daemon = True
        killing.start()

    # The kubelet ------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closing.wait(POLL_S):
            with self.api.lock:
                for name, container in list(self._containers.items()):
                    if name not in self._frozen:
                        self._look_at(name, container)

    def _look_at(self, name: str, container: Container) -> None:
        pod = self.api.objects["pods"][name]
        code = container.process.poll()
        if code is None:
            if container.running:
                pod["status"]["phase"] = "Running"
                pod["status"]["containerStatuses"] = [{"name": "ranks", "state": {"running": {}}}]
            return
        del self._containers[name]
        self._cut(name)
        if "deletionTimestamp" in pod["metadata"]:
            del self.api.objects["pods"][name]
            return
        ended = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Error" if code else "Completed",
        }
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        pod["status"]["containerStatuses"] = [{"name": "ranks", "state": {"terminated": ended}}]

    def _cut(self, name: str) -> None:
        for stream in self._streams.pop(name, []):
            stream.flowing.set()
            stream.cut()

    def _execute(self, name: str, argv: list[str], stdin: bool, channels: Channels) -> None:
        container = self._containers.get(name)
        if name in self._frozen:
            self._streams.setdefault(name, []).append(channels)
            channels.flowing.clear()
            channels.flowing.wait()
            return
        if container is None or not container.running:
            failure = {"status": "Failure", "message": "container not found", "reason": "NotFound"}
            channels.send(STATUS, json.dumps(failure).encode())
            channels.close()
            return
        self._streams.setdefault(name, []).append(channels)
        serve_command(container.execute(argv, stdin=stdin), channels)


def write_kubeconfig(path: Path, address: str) -> Path:
    """A file with the context ``test`` and its namespace ``lab``."""
    context = {"cluster": "c", "user": "u", "namespace": "lab"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": context}],
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(json.dumps(config))
    return path


def serve_command(process: subprocess.Popen[bytes], channels: Channels) -> None:
    """Relay its streams until it has ended, and say how it did."""
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = [
        threading.Thread(target=_relay, args=(process.stdout, channels, STDOUT)),
        threading.Thread(target=_relay, args=(process.stderr, channels, STDERR)),
    ]
    for thread in (
        *outputs,
        threading.Thread(target=_feed, args=(process, channels), daemon=True),
    ):
        thread.start()
    for thread in outputs:
        thread.join()
    code = process.wait()
    process.stdout.close()
    process.stderr.close()
    cause = {"reason": "ExitCode", "message": str(code)}
    ended = (
        {"status": "Success"}
        if code == 0
        else {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
    )
    try:
        channels.send(STATUS, json.dumps(ended).encode())
    except OSError:
        return
    channels.close()


def _relay(source: Any, channels: Channels, channel: int) -> None:
    """As a container runtime does: what nobody reads any more is dropped, the command lives on."""
    while data := source.read1(CHUNK):
        try:
            channels.send(channel, data)
        except OSError:
            continue


def _feed(process: subprocess.Popen[bytes], channels: Channels) -> None:
    """Standard input; at its end also when the client leaves."""
    for channel, data in channels.received():
        if process.stdin is None or (channel == CLOSE and data[:1] == bytes([STDIN])):
            break
        if channel == STDIN:
            try:
                process.stdin.write(data)
                process.stdin.flush()
            except OSError:
                break
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    for _ in channels.received():
        pass


@contextmanager
def raise_cluster(machines: Machines) -> Iterator[Cluster]:
    """A cluster of these machines, taken down at the end with all that runs in it."""
    cluster = Cluster(machines)
    try:
        yield cluster
    finally:
        cluster.close()


def wait_until(holds: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(POLL_S)
