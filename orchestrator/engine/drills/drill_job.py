"""The job that drills disturb: ranks that count lines and sleep, whatever the inventory says."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.catalog.bundled import bundled_kit, bundled_root
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.sync.code_snapshot import take_snapshot, workload_parts
from orchestrator.core.model.inventory import Cluster, NodeSpec, PythonKind, PythonSpec
from orchestrator.core.model.request import RunRequest
from orchestrator.engine.drills.stage import Setting
from orchestrator.parsing.inputs.workloads.jobs import make_job
from orchestrator.parsing.inputs.workloads.workload_file import load_workload


def sleeping_job(layout: Layout, cluster: Cluster) -> Setting:
    """The bundled sleeping job on every worker of ``cluster``. Raises ``UsageError``,
    ``OSError``.
    """
    folder = bundled_root() / "workloads" / "sleep"
    file = folder / "workload.yaml"
    job = make_job(load_workload(file.read_bytes(), str(file), str(folder)))
    snapshot = take_snapshot(workload_parts(folder, [bundled_kit()]), layout.snapshots)
    request = RunRequest(
        run_id="",
        cluster=replace(cluster, nodes=tuple(map(_plain_node, cluster.nodes)), min_nodes=None),
        job=job,
        launcher="direct",
        code=snapshot.digest,
        entry=f"{folder.name}/{job.workload.entry}",
    )
    return Setting(layout=layout, request=request, snapshot=snapshot)


def _plain_node(spec: NodeSpec) -> NodeSpec:
    """Sleeping needs no environment to be built, and none of the user's variables or secrets."""
    base = spec.python.base
    python = PythonSpec(kind=PythonKind.INTERPRETER, value=base, base=base)
    return replace(spec, env={}, python=python)
