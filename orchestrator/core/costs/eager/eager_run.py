"""From a planned run of transformers' own forward pass to what it will take."""

from __future__ import annotations

from orchestrator.core.costs.eager.eager_prediction import GIB, predict_eager
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.hardware import FabricHardware
from orchestrator.core.costs.inference_step import InferenceJob
from orchestrator.core.costs.job_costs import planned_figure
from orchestrator.core.costs.job_prediction import JobPrediction, NotPredicted
from orchestrator.core.costs.predict import CostModel
from orchestrator.core.model.workload import InferenceSource, Job


def eager_job(one: InferenceJob, job: Job, source: InferenceSource, gpus: int) -> EagerJob:
    """``one`` sequence's job as the parameters ask it of so many GPUs. Raises
    :class:`NotPredicted` for a division that the program refuses.
    """
    rows = 1 if source.in_flight is None else int(job.values[source.in_flight])
    asked = 1 if source.tensor_parallel is None else int(job.values[source.tensor_parallel])
    tensor = asked or gpus
    if tensor not in {1, gpus} or one.shape.kv_heads % tensor:
        raise NotPredicted(
            f"{tensor} ranks share a model of {one.shape.kv_heads} key-value heads on {gpus} GPUs"
        )
    return EagerJob(
        shape=one.shape,
        rows=rows,
        prompt=one.prompt,
        answer=one.answer,
        tensor=tensor,
        replicas=gpus // tensor,
    )


def planned_eager(
    job: EagerJob, source: InferenceSource, fabric: FabricHardware, model: CostModel
) -> JobPrediction:
    """The figures that the workload reports, and watts of a GPU. Raises :class:`NotPredicted` for a
    model that does not fit, and :class:`OutOfCoverage`.
    """
    found, names = predict_eager(job, fabric, model), source.figures
    peak, room = found.figures["peak_memory_bytes"], model.device.memory_bytes
    if peak.low > room:
        raise NotPredicted(
            f"a GPU needs {peak.low / 1e9:.0f} GB or more, and {model.device.name} has "
            f"{room / 1e9:.0f} GB: set a smaller shape or batch, or divide the model"
        )
    figures = {
        names.throughput: planned_figure(found.figures["decode_tokens_per_s"], "tok/s"),
        names.watts: planned_figure(found.figures["watts"], "W"),
    }
    if names.prefill is not None:
        figures[names.prefill] = planned_figure(found.figures["prefill_tokens_per_s"], "tok/s")
    if names.memory is not None:
        figures[names.memory] = planned_figure(peak.scaled(1 / GIB), "GiB")
    return JobPrediction(figures=figures, basis=found.basis)
