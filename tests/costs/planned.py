"""A fine-tune of Qwen2-7B on eight B200 that was planned and never ran, and its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.costs.cost_files import CostFiles
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import write_result
from orchestrator.cli.load_request import assume_plan
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.model.inventory import Cluster, GpuSpec
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import MetricResult, Result, Status
from orchestrator.parsing.inputs.workloads.jobs import make_job

SETTINGS = ("preset=qwen2-7b", "steps=100")


def cost_files(home: Path) -> CostFiles:
    """The bundled ones, with this home."""
    environ = {"ORCHESTRATE_HOME": str(home)}
    return CostFiles(Catalog.from_environment(environ, home / "project"), Layout(home))


def planned(
    files: CostFiles,
    *settings: str,
    gpu: str = "B200",
    gpus: int = 8,
    price: float | None = None,
    workload: str = "finetune",
) -> tuple[RunRequest, Plan]:
    """On one node of the bundled inventory with other GPUs."""
    cluster: Cluster = files.catalog.cluster("nebius1x8")
    node = replace(cluster.nodes[0], gpus=GpuSpec(count=gpus, type=gpu), price_per_hour=price)
    preset = SETTINGS if workload == "finetune" else ()
    job = make_job(files.catalog.workload(workload), (*preset, *settings))
    request = RunRequest(run_id="r1", cluster=replace(cluster, nodes=(node,)), job=job)
    return request, assume_plan(request)


def result_of(request: RunRequest, figures: Mapping[str, float], run_id: str = "r1") -> Result:
    """A run that succeeded and reported these."""
    return Result(
        run_id=run_id,
        status=Status.SUCCEEDED,
        exit_code=ExitCode.DONE,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        launcher="torchrun",
        world_size=8,
        metrics={name: MetricResult(value=value, unit="") for name, value in figures.items()},
    )


def finished_run(
    files: CostFiles, run_id: str, figures: Mapping[str, float], *settings: str, gpus: int = 8
) -> RunFolder:
    """On disk, as a coordinator leaves it."""
    request, plan = planned(files, *settings, gpus=gpus)
    folder = files.layout.run(run_id)
    folder.create()
    folder.request.write_text(json.dumps(to_json(request)))
    folder.plan.write_text(json.dumps(to_json(plan)))
    write_result(folder, result_of(request, figures, run_id))
    return folder
