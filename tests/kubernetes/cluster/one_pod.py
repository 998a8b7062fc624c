"""A pod without a cluster: an API server that knows it, and executes its commands here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.core.model.inventory import NodeSpec, SshEndpoint, TransportKind
from orchestrator.core.model.pod_place import GROUP_LABEL, INDEX_LABEL, JOB_LABEL, PodPlace
from tests.kubernetes.cluster.api_server import ApiServer
from tests.kubernetes.cluster.cluster import serve_command, write_kubeconfig
from tests.kubernetes.cluster.websocket import Channels

PLACE = PodPlace(job="run-one", group="nodes", index=0, python=sys.executable)


@contextmanager
def serve_pod(root: Path) -> Iterator[tuple[NodeSpec, Mapping[str, str]]]:
    """The node, and the variables with which kubectl finds it."""
    server = ApiServer()
    labels = {JOB_LABEL: PLACE.job, GROUP_LABEL: PLACE.group, INDEX_LABEL: "0"}
    server.objects["pods"]["run-one-nodes-0-0-abcde"] = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "run-one-nodes-0-0-abcde", "uid": "1", "labels": labels},
        "spec": {"nodeName": "here"},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]},
    }
    running: list[subprocess.Popen[bytes]] = []

    def execute(_: str, argv: list[str], stdin: bool, channels: Channels) -> None:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        running.append(process)
        serve_command(process, channels)

    server.on_exec = execute
    config = write_kubeconfig(root / "kubeconfig", server.address)
    variables = {"KUBECONFIG": str(config), "KUBECACHEDIR": str(root / "kube-cache")}
    endpoint = SshEndpoint(host="pod")
    try:
        yield (
            NodeSpec(name="pod", transport=TransportKind.KUBERNETES, ssh=endpoint, pod=PLACE),
            variables,
        )
    finally:
        server.close()
        for process in running:
            process.kill()
            process.wait()
