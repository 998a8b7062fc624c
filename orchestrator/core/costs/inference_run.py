"""From a planned run of inference to what it will take: engines that answer independently of each
other, each on a GPU of its own.

With ``n`` requests always in flight an engine answers n of them in the time W(n) that n prompts and
their answers take together. Requests that come at a rate are in flight as often as this takes
(Little, 1961, doi 10.1287/opre.9.3.383): n is the least for which n / W(n) reaches the rate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from orchestrator.core.base.figures import format_figure
from orchestrator.core.costs.estimate import Interval, joined
from orchestrator.core.costs.hardware import Fabric
from orchestrator.core.costs.inference_prediction import predict_inference
from orchestrator.core.costs.inference_step import InferenceJob, cache_bytes
from orchestrator.core.costs.job_costs import planned_figure, require_measured
from orchestrator.core.costs.job_prediction import JobPrediction, NotPredicted
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.predict import CostModel, Prediction
from orchestrator.core.model.parameter_conflicts import condition_holds
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.workload import InferenceSource, Job

SMALL = frozenset({"", "none", "tiny"})  # the model that each workload brings along
MOST_SLOTS = 256  # requests that an engine answers at once (builtin/options.py)
CACHE_SHARE = 0.8  # of what weights leave free (builtin/engine.py)
SLOTS_OFF = 3  # by which what is free may differ: the driver and libraries take some
MOST_CONTEXT = 4096  # tokens of the prompt for which it keeps memory by itself (builtin/engine.py)


class Load(NamedTuple):
    """What each of the ``engines`` is asked: requests of ``rate`` per second for ``duration_s``,
    else so many always in flight.
    """

    engines: int
    in_flight: int
    rate: float = 0.0
    duration_s: float = 0.0


class Answers(NamedTuple):
    """What one engine does: the job, what is predicted of it, and W(n) in seconds."""

    job: InferenceJob
    found: Prediction
    whole: Interval


def model_name(job: Job, source: InferenceSource) -> str:
    """Of the model or, without one, of the shape. Raises :class:`NotPredicted`."""
    shape = job.values[source.shape] if source.shape else ""
    name = str(job.values[source.model] or shape)
    if name in SMALL:
        raise NotPredicted("the included model is too small for a GPU to be predicted")
    return name


def count_engines(job: Job, source: InferenceSource, plan: Plan) -> int:
    """Of all nodes. Raises :class:`NotPredicted` where several share a GPU."""
    asked = int(_number(job, source.engines)) if source.engines else 0
    gpus = [len(share.gpus) or len(share.ranks) for share in plan.nodes]
    if asked > min(gpus):
        raise NotPredicted(f"{asked} engines share {min(gpus)} GPUs of a node")
    return asked * len(gpus) or sum(gpus)


def load_of(job: Job, source: InferenceSource, engines: int) -> Load:
    """What the parameters ask of each engine."""
    if source.in_flight is None:
        return Load(engines=engines, in_flight=MOST_SLOTS)
    in_flight = int(_number(job, source.in_flight))
    if source.shared:
        in_flight = math.ceil(in_flight / engines)
    is_closed = all(condition_holds(each, job.values) for each in source.closed)
    if source.rate is None or is_closed:
        return Load(engines=engines, in_flight=in_flight)
    duration_s = _number(job, source.duration) if source.duration else 0.0
    rate = _number(job, source.rate) / engines
    return Load(engines=engines, in_flight=0, rate=rate, duration_s=duration_s)


def inference_job(job: Job, source: InferenceSource, shape: ModelShape) -> InferenceJob:
    """One request of one engine. Raises :class:`NotPredicted` where it is another program than the
    one that was measured.
    """
    require_measured(job, source.only)
    words = _number(job, source.prompt_words)
    prompt = max(1, math.ceil(words * source.tokens_per_word))
    return InferenceJob(shape=shape, rows=1, prompt=prompt, answer=int(_number(job, source.answer)))


def answer_load(one: InferenceJob, load: Load, fabric: Fabric, model: CostModel) -> Answers:
    """Raises :class:`NotPredicted` for a rate that no number of requests at once reaches, and
    :class:`OutOfCoverage`.
    """
    if not load.rate:
        return _answers(one, min(load.in_flight, MOST_SLOTS), fabric, model)
    most = _answers(one, MOST_SLOTS, fabric, model)
    if not _keeps_up(most, load.rate):
        reached = MOST_SLOTS / most.whole.value
        raise NotPredicted(
            f"each engine is asked {format_figure(load.rate, 'requests/s')}, and answers at most "
            f"{reached:.3g}"
        )
    least, enough = 0, MOST_SLOTS
    while enough - least > 1:
        middle = (least + enough) // 2
        fits = _keeps_up(_answers(one, middle, fabric, model), load.rate)
        least, enough = (least, middle) if fits else (middle, enough)
    return _answers(one, enough, fabric, model)


def _keeps_up(answers: Answers, rate: float) -> bool:
    return answers.job.rows / answers.whole.value >= rate


def _answers(one: InferenceJob, rows: int, fabric: Fabric, model: CostModel) -> Answers:
    job = replace(one, rows=rows)
    found = predict_inference(job, fabric, model)
    first, step = found.figures["prompts_done_s"], found.figures["decode_step_s"]
    return Answers(job, found, joined((first, step.scaled(max(1, job.answer - 1)))))


def kept_job(job: Job, source: InferenceSource, asked: InferenceJob) -> InferenceJob:
    """``asked`` with answers that fill the context for which the engine keeps memory."""
    context = int(_number(job, source.context)) if source.context else MOST_CONTEXT
    context = context or MOST_CONTEXT + asked.answer
    return replace(asked, answer=max(asked.answer, context - asked.prompt))


def engine_memory(kept: InferenceJob, fabric: Fabric, model: CostModel) -> Interval:
    """Its peak. Raises :class:`NotPredicted` where it does not fit, and :class:`OutOfCoverage`."""
    peak = predict_inference(kept, fabric, model).figures["peak_memory_bytes"]
    if peak.low > model.device.memory_bytes:
        raise NotPredicted(
            f"an engine that answers {kept.rows} at once takes {peak.low / 1e9:.0f} GB or more, "
            f"and {model.device.name} has {model.device.memory_bytes / 1e9:.0f} GB"
        )
    return peak


def planned_inference(
    source: InferenceSource, load: Load, alone: Prediction, answers: Answers, memory: Interval
) -> JobPrediction:
    """The figures that the workload reports, watts of a GPU, and the memory of an engine that keeps
    no more than it is asked to. ``alone``: of a request that has an engine for itself: none is
    faster. A first token comes no later than when all prompts that are in flight come at once.
    """
    found, names = answers.found.figures, source.figures
    figures = {names.throughput: planned_figure(_throughput(load, answers), "tok/s")}
    if names.first_token is not None:
        first = _from_to(alone.figures["prompts_done_s"], found["prompts_done_s"])
        figures[names.first_token] = planned_figure(first, "s")
    if names.token is not None:
        most = answers.whole.scaled(1 / max(1, answers.job.answer - 1))
        figures[names.token] = planned_figure(_from_to(found["decode_step_s"], most), "s")
    figures[names.watts] = planned_figure(found["watts"], "W")
    if source.context is not None:
        figures["peak_memory_bytes"] = planned_figure(memory, "bytes")
    return JobPrediction(figures=figures, basis=answers.found.basis)


def _from_to(least: Interval, most: Interval) -> Interval:
    return Interval(value=least.value, low=least.low, high=max(least.high, most.high))


def _throughput(load: Load, answers: Answers) -> Interval:
    """Output tokens/s from the first send to the last answer, which comes after the schedule."""
    if not load.rate:
        return answers.found.figures["tokens_per_s"].scaled(load.engines)
    asked = load.rate * answers.job.answer * load.engines
    value, soon, late = (
        asked * load.duration_s / (load.duration_s + after_s)
        for after_s in (answers.whole.value, 0.0, answers.whole.high)
    )
    return Interval(value=value, low=late, high=soon)


def planned_batches(
    job: Job, source: InferenceSource, one: InferenceJob, fabric: Fabric, model: CostModel
) -> JobPrediction:
    """The figures of each batch, which ends before the next one begins. Raises
    :class:`NotPredicted` for one that does not fit, and :class:`OutOfCoverage`.
    """
    names, figures, basis = source.figures, {}, ""
    for rows in map(int, str(job.values[source.batches or ""]).split(",")):
        answers = _answers(one, rows, fabric, model)
        engine_memory(answers.job, fabric, model)
        found, basis = answers.found.figures, answers.found.basis
        rate, watts = found["tokens_per_s"], found["watts"]
        figures[f"{names.throughput}.batch{rows}"] = planned_figure(rate, "tok/s")
        figures[f"{names.watts}.batch{rows}"] = planned_figure(watts, "W")
    return JobPrediction(figures=figures, basis=basis)


def planned_server(
    source: InferenceSource, load: Load, one: InferenceJob, fabric: Fabric, model: CostModel
) -> JobPrediction:
    """What engines that take the memory that they find can answer at most, and what they take.
    Raises :class:`NotPredicted` where the model does not fit, and :class:`OutOfCoverage`.
    """
    full = replace(one, answer=max(one.answer, MOST_CONTEXT - one.prompt))
    lone = engine_memory(full, fabric, model)  # with one slot
    slot = cache_bytes(full, MOST_CONTEXT)
    room = model.device.memory_bytes - (lone.value - slot)
    slots = max(1, min(load.in_flight, int(CACHE_SHARE * room / slot)))
    answers = _answers(one, slots, fabric, model)
    memory = engine_memory(replace(full, rows=slots), fabric, model)
    names, found = source.figures, answers.found.figures
    kept = Interval(slots * slot, *(max(1, slots + by) * slot for by in (-SLOTS_OFF, SLOTS_OFF)))
    figures = {
        names.throughput: planned_figure(found["tokens_per_s"].scaled(load.engines), "tok/s"),
        names.watts: planned_figure(found["watts"], "W"),
        "peak_memory_bytes": planned_figure(memory, "bytes"),
    }
    if names.cache is not None:
        figures[names.cache] = planned_figure(kept, "bytes")
    return JobPrediction(figures=figures, basis=answers.found.basis)


def _number(job: Job, name: str | int) -> float:
    """Of a parameter; a number stands for itself."""
    return float(name if isinstance(name, int) else job.values[name])
