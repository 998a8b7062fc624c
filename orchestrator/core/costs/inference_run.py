"""From a planned run of inference to what it will take: engines that answer independently of each
other, each on a GPU of its own.

With ``n`` requests always in flight an engine answers n of them in the time W(n) that n prompts and
their answers take together: answers of one length end together, and the next prompts come together.

Requests that come at a rate come one by one. Between two decode steps the engine computes those
that came meanwhile, so that a token takes its step and the prompts of that time; and as many are in
flight as come while one is answered (Little, 1961, doi 10.1287/opre.9.3.383). A prompt waits for
those before it as a queue with one server does (Pollaczek and Khinchine), and for a step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from orchestrator.core.base.figures import format_figure
from orchestrator.core.costs.estimate import Interval, depending, estimate, joined
from orchestrator.core.costs.hardware import FabricHardware
from orchestrator.core.costs.inference_prediction import predict_inference
from orchestrator.core.costs.inference_step import (
    InferenceJob,
    cache_bytes,
    power_terms,
    request_terms,
    serving_terms,
    steady_power_terms,
)
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
ROUNDS, CLOSE = 200, 1e-6  # until the time of a token no longer moves
BUSIEST = 0.9  # of the time prompts take no more here: beyond, a queue grows without bound
MOST_CONTEXT = 4096  # tokens of the prompt for which it keeps memory by itself (builtin/engine.py)


class Load(NamedTuple):
    """What each of the ``engines`` is asked: requests of ``rate`` per second for ``duration_s``,
    else so many always in flight. ``served``: requests and answers are texts of other programs.
    """

    engines: int
    in_flight: int
    rate: float = 0.0
    duration_s: float = 0.0
    served: bool = False


class EngineAnswers(NamedTuple):
    """What one engine does: the job, what is predicted of it, and seconds: of all its requests,
    until the first token of one, of each token after it; watts of its GPU. None = as a job of so
    many at once says.
    """

    job: InferenceJob
    found: Prediction
    whole: Interval
    first: Interval | None = None
    token: Interval | None = None
    watts: Interval | None = None

    @property
    def rate(self) -> Interval:
        """Output tokens/s while as many are always in flight."""
        return self.whole.inverted(self.job.rows * self.job.answer)


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
        return Load(engines=engines, in_flight=MOST_SLOTS, served=source.served)
    in_flight = int(_number(job, source.in_flight))
    if source.shared:
        in_flight = math.ceil(in_flight / engines)
    is_closed = all(condition_holds(each, job.values) for each in source.closed)
    if source.rate is None or is_closed:
        return Load(engines=engines, in_flight=in_flight, served=source.served)
    duration_s = _number(job, source.duration) if source.duration else 0.0
    rate = _number(job, source.rate) / engines
    return Load(engines, in_flight=0, rate=rate, duration_s=duration_s, served=True)


def inference_job(job: Job, source: InferenceSource, shape: ModelShape) -> InferenceJob:
    """One request of one engine. Raises :class:`NotPredicted` where it is another program than the
    one that was measured.
    """
    require_measured(job, source.only)
    words = _number(job, source.prompt_words)
    prompt = max(1, math.ceil(words * source.tokens_per_word))
    return InferenceJob(shape=shape, rows=1, prompt=prompt, answer=int(_number(job, source.answer)))


def answer_load(
    one: InferenceJob, load: Load, fabric: FabricHardware, model: CostModel
) -> EngineAnswers:
    """Raises :class:`NotPredicted` for a rate that no number of requests at once reaches, and
    :class:`OutOfCoverage`.
    """
    if not load.rate:
        rows = min(load.in_flight, MOST_SLOTS)
        return _answers(one, rows, fabric, model, served=load.served)
    prompts = _Prompts(one, fabric, model)
    rows = 1
    while True:
        answers = _steady_answers(prompts, rows, load.rate)
        needed = math.ceil(load.rate * answers.whole.value)
        if needed <= rows:
            return answers
        if rows == MOST_SLOTS:
            break
        rows = min(MOST_SLOTS, needed)
    # All slots are taken: requests wait for one, and their prompts are computed together.
    most = _answers(one, MOST_SLOTS, fabric, model, served=True)
    reached = MOST_SLOTS / most.whole.value
    if reached >= load.rate:
        return most._replace(first=answers.first, token=answers.token, watts=answers.watts)
    raise NotPredicted(
        f"each engine is asked {format_figure(load.rate, 'requests/s')}, and answers at most "
        f"{reached:.3g}"
    )


class _Prompts:
    """What is predicted of so many requests at once, each number once."""

    def __init__(self, one: InferenceJob, fabric: FabricHardware, model: CostModel) -> None:
        self.one = one
        self._fabric, self._model = fabric, model
        self._power = model.families["inference.power"]
        self._serving = model.families["serving.step"]
        self.taken = _request_s(one._replace(rows=1), model)
        self._known: dict[int, Prediction] = {}

    def at_once(self, count: int) -> Prediction:
        """At most as many as there are slots."""
        rows = max(1, min(MOST_SLOTS, count))
        if rows not in self._known:
            job = self.one._replace(rows=rows)
            self._known[rows] = predict_inference(job, self._fabric, self._model)
        return self._known[rows]

    def served_step_s(self, rows: int) -> Interval:
        """A decode step with what the server does for it."""
        own = estimate(self._serving, tuple(serving_terms(self.one._replace(rows=rows))))
        return joined((self.at_once(rows).figures["decode_step_s"], own))

    def watts(self, rows: int, rate: float, token: Interval) -> Interval:
        """Of the GPU, while ``rate`` requests come in a second and ``rows`` are in flight."""
        device, job = self._model.device, self.one._replace(rows=rows)

        def drawn(token_s: float) -> Interval:
            terms = tuple(steady_power_terms(job, device, rate, token_s))
            return estimate(self._power, terms, device.power_w)

        return depending(token, drawn)

    def done_s(self, count: float) -> Interval:
        """Until so many prompts, computed together, have their first tokens: no sooner than one
        alone, which a slow host may hold up for longer than the device takes for some.
        """
        found, alone = (
            self.at_once(rows).figures["prompts_done_s"] for rows in (math.ceil(count), 1)
        )
        return Interval(*map(max, found, alone))


def _steady_answers(prompts: _Prompts, rows: int, rate: float) -> EngineAnswers:
    """With ``rows`` in flight while requests come one by one, ``rate`` of them in a second."""
    one, found = prompts.one, prompts.at_once(rows)
    step, alone = prompts.served_step_s(rows), prompts.done_s(1)
    token = Interval(*(_token_s(prompts, step, rate, end) for end in range(3)))
    used = min(BUSIEST, rate * alone.value)
    together = prompts.done_s(rate * token.value)
    wait = together.scaled(used / (2 * (1 - used)))
    first = joined((together, step, wait, prompts.taken))
    whole = joined((first, token.scaled(max(1, one.answer - 1))))
    watts = prompts.watts(rows, rate, token)
    return EngineAnswers(one._replace(rows=rows), found, whole, first, token, watts)


def _token_s(prompts: _Prompts, step: Interval, rate: float, end: int) -> float:
    """Seconds of a token with the prompts that come meanwhile, at one ``end`` of all intervals: the
    least that is its step and these prompts, for it grows from the step alone.
    """
    token_s = step[end]
    for _ in range(ROUNDS):
        coming = rate * token_s
        longer_s = step[end] + min(1.0, coming) * prompts.done_s(coming)[end]
        if longer_s <= token_s * (1 + CLOSE):
            break
        token_s = longer_s
    return token_s


def _answers(
    one: InferenceJob, rows: int, fabric: FabricHardware, model: CostModel, *, served: bool = False
) -> EngineAnswers:
    job = one._replace(rows=rows)
    found = predict_inference(job, fabric, model)
    prompts, step = found.figures["prompts_done_s"], found.figures["decode_step_s"]
    steps = max(1, job.answer - 1)
    if not served:
        return EngineAnswers(job, found, joined((prompts, step.scaled(steps))))
    taken = _request_s(job, model)
    all_first = joined((prompts, taken))
    whole = joined((all_first, step.scaled(steps)))
    # First tokens come one after the other; what is left of them is between the others' tokens.
    first = all_first.scaled((1 + 1 / rows) / 2)
    token = joined((step, all_first.scaled((1 - 1 / rows) / 2 / steps))) if rows > 1 else step

    def drawn(taken_s: float) -> Interval:
        first_s = prompts.value + taken_s
        terms = tuple(power_terms(job, model.device, step.value, first_s))
        return estimate(model.families["inference.power"], terms, model.device.power_w)

    return EngineAnswers(job, found, whole, first, token, depending(taken, drawn))


def _request_s(job: InferenceJob, model: CostModel) -> Interval:
    """What is done for the requests of ``job`` beside its engine."""
    return estimate(model.families["serving.prompts"], tuple(request_terms(job)))


def kept_job(job: Job, source: InferenceSource, asked: InferenceJob) -> InferenceJob:
    """``asked`` with answers that fill the context for which the engine keeps memory."""
    context = int(_number(job, source.context)) if source.context else MOST_CONTEXT
    context = context or MOST_CONTEXT + asked.answer
    return asked._replace(answer=max(asked.answer, context - asked.prompt))


def engine_memory(kept: InferenceJob, fabric: FabricHardware, model: CostModel) -> Interval:
    """Its peak. Raises :class:`NotPredicted` where it does not fit, and :class:`OutOfCoverage`."""
    peak = predict_inference(kept, fabric, model).figures["peak_memory_bytes"]
    if peak.low > model.device.memory_bytes:
        raise NotPredicted(
            f"an engine that answers {kept.rows} at once takes {peak.low / 1e9:.0f} GB or more, "
            f"and {model.device.name} has {model.device.memory_bytes / 1e9:.0f} GB"
        )
    return peak


def planned_inference(
    source: InferenceSource, load: Load, alone: Prediction, answers: EngineAnswers, memory: Interval
) -> JobPrediction:
    """The figures that the workload reports, watts of a GPU, and the memory of an engine that keeps
    no more than it is asked to. ``alone``: of a request that has an engine for itself: none is
    faster. A first token comes no later than when all prompts that are in flight come at once.
    """
    found, names = answers.found.figures, source.figures
    figures = {names.throughput: planned_figure(_throughput(load, answers), "tok/s")}
    least = alone.figures["prompts_done_s"]
    if names.first_token is not None:
        first = _from_to(least, answers.first or least, found["prompts_done_s"])
        figures[names.first_token] = planned_figure(first, "s")
    if names.token is not None:
        step = found["decode_step_s"]
        most = answers.whole.scaled(1 / max(1, answers.job.answer - 1))
        token = _from_to(step, answers.token or step, answers.token or most)
        figures[names.token] = planned_figure(token, "s")
    figures[names.watts] = planned_figure(answers.watts or found["watts"], "W")
    if source.context is not None:
        figures["peak_memory_bytes"] = planned_figure(memory, "bytes")
    return JobPrediction(figures=figures, basis=answers.found.basis)


def _from_to(least: Interval, likely: Interval, most: Interval) -> Interval:
    high = max(least.high, likely.high, most.high)
    return Interval(value=likely.value, low=min(least.low, likely.value), high=high)


def _throughput(load: Load, answers: EngineAnswers) -> Interval:
    """Output tokens/s from the first send to the last answer, which comes after the schedule."""
    if not load.rate:
        return answers.rate.scaled(load.engines)
    asked = load.rate * answers.job.answer * load.engines
    value, soon, late = (
        asked * load.duration_s / (load.duration_s + after_s)
        for after_s in (answers.whole.value, 0.0, answers.whole.high)
    )
    return Interval(value=value, low=late, high=soon)


def planned_batches(
    job: Job, source: InferenceSource, one: InferenceJob, fabric: FabricHardware, model: CostModel
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
    source: InferenceSource, load: Load, one: InferenceJob, fabric: FabricHardware, model: CostModel
) -> JobPrediction:
    """What engines that take the memory that they find can answer at most, and what they take.
    Raises :class:`NotPredicted` where the model does not fit, and :class:`OutOfCoverage`.
    """
    full = one._replace(answer=max(one.answer, MOST_CONTEXT - one.prompt))
    lone = engine_memory(full, fabric, model)  # with one slot
    slot = cache_bytes(full, MOST_CONTEXT)
    room = model.device.memory_bytes - (lone.value - slot)
    slots = max(1, min(load.in_flight, int(CACHE_SHARE * room / slot)))
    answers = _answers(one, slots, fabric, model, served=load.served)
    memory = engine_memory(full._replace(rows=slots), fabric, model)
    names, found = source.figures, answers.found.figures
    kept = Interval(slots * slot, *(max(1, slots + by) * slot for by in (-SLOTS_OFF, SLOTS_OFF)))
    figures = {
        names.throughput: planned_figure(answers.rate.scaled(load.engines), "tok/s"),
        names.watts: planned_figure(answers.watts or found["watts"], "W"),
        "peak_memory_bytes": planned_figure(memory, "bytes"),
    }
    if names.cache is not None:
        figures[names.cache] = planned_figure(kept, "bytes")
    return JobPrediction(figures=figures, basis=answers.found.basis)


def _number(job: Job, name: str | int) -> float:
    """Of a parameter; a number stands for itself."""
    return float(name if isinstance(name, int) else job.values[name])
