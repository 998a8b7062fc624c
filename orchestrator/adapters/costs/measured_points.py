"""What was measured: runs of the history, or the points of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.adapters.catalog.catalog import read_bounded
from orchestrator.adapters.costs.cost_files import CostFiles
from orchestrator.adapters.history.import_runs import run_folders
from orchestrator.adapters.history.run_entry import read_findings, read_plan, read_request
from orchestrator.adapters.store.layout import RunFolder, valid_run_id
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.costs.calibration import Observation
from orchestrator.core.costs.hardware import make_fabric
from orchestrator.core.costs.job_costs import Texts, planned_gpus, text_cases, training_job
from orchestrator.core.costs.job_prediction import NotPredicted
from orchestrator.core.costs.tables import CostTables
from orchestrator.core.verdict.result import Result, Status
from orchestrator.parsing.inputs.costs.points_file import load_points

# A run's figures by the names that families are fitted to.
MEASURED_AS = {
    "step_time_p50": "step_s",
    "tokens_per_s": "tokens_per_s",
    "peak_memory_bytes": "peak_bytes",
    "watts": "watts",
}
GPUS_OF_A_NODE = 8
MOST_RUNS = 1000


def observe(
    files: CostFiles, tables: CostTables, names: Sequence[str]
) -> tuple[list[Observation], list[str]]:
    """Of runs (ids or folders) and files of points; of all runs without names. And why others were
    left out. Raises :class:`UsageError` for what is neither.
    """
    found: list[Observation] = []
    skipped: list[str] = []
    for folder in _folders(files, [n for n in names if not n.endswith(".jsonl")], names):
        try:
            found.append(observe_run(files, tables, folder))
        except (NotPredicted, OrchestrateError) as error:
            why = error.what if isinstance(error, OrchestrateError) else str(error)
            skipped.append(f"{folder.run_id}: {why}")
    for name in names:
        if name.endswith(".jsonl"):
            found += observe_points(files, tables, Path(name))
    return found, skipped


def _folders(files: CostFiles, runs: Sequence[str], names: Sequence[str]) -> Iterable[RunFolder]:
    """The newest ones, where there are too many."""
    paths = [_run_path(files, name) for name in runs] if names else [files.layout.runs]
    return list(run_folders(paths, required=bool(names)))[-MOST_RUNS:]


def _run_path(files: CostFiles, name: str) -> Path:
    """A folder, or the folder of a run's id."""
    path = Path(name)
    return files.layout.run(name).path if valid_run_id(name) and not path.exists() else path


def observe_points(files: CostFiles, tables: CostTables, path: Path) -> Iterator[Observation]:
    """The points of one file. Raises :class:`UsageError`, also for a GPU that has no file."""
    for point in load_points(read_bounded(path), str(path)):
        gpu = tables.gpu_called(point.device)
        if gpu is None:
            what = f"hardware/gpus has no file for {point.device}"
            raise UsageError(what, id="model.gpu", where=path)
        tied = point.tied
        yield Observation(
            label=point.label,
            gpu=gpu,
            job=point.job(lambda name, tied=tied: files.shape(tables, name)._replace(tied=tied)),  # type: ignore[misc]
            fabric=make_fabric(tables.gpus[gpu], tables.links, GPUS_OF_A_NODE),
            figures=point.figures,
            held_out=point.held_out,
        )


def observe_run(files: CostFiles, tables: CostTables, folder: RunFolder) -> Observation:
    """A finished run as a measured point. Raises :class:`NotPredicted` for one that says nothing of
    a step, and :class:`OrchestrateError` for what cannot be read.
    """
    request, result = read_request(folder), read_result(folder)
    if request is None or result is None or result.status is not Status.SUCCEEDED:
        raise NotPredicted("it did not succeed")
    source = request.job.workload.training
    if source is None:
        raise NotPredicted(f"{result.workload} does not say what a step of it is")
    plan = read_plan(folder)
    if plan is None:
        raise NotPredicted("its plan cannot be read")
    facts, _ = read_findings(folder.journal)
    gpus = planned_gpus(plan, request.cluster, facts, tables)
    shape = files.shape(tables, str(request.job.values[source.model]))
    figures = {
        MEASURED_AS[name]: metric.value
        for name, metric in result.metrics.items()
        if name in MEASURED_AS and metric.value is not None and metric.value > 0
    }
    step = training_job(request.job, source, shape, gpus.total)
    cases = text_cases(request.job, source, step, _texts(result))
    if len(cases) > 1:
        raise NotPredicted("it does not say what its rows are made of")
    return Observation(
        label=folder.run_id,
        gpu=gpus.kind,
        job=cases[0],
        fabric=gpus.fabric,
        figures=figures,
    )


def _texts(result: Result) -> Texts | None:
    """What the run itself reports of them."""
    found = [result.metrics.get(name) for name in ("text_tokens", "target_fraction")]
    tokens, targets = (None if each is None else each.value for each in found)
    return Texts(tokens, targets) if tokens and targets and targets <= 1 else None
