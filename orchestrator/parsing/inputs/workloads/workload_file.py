"""workload.yaml -> :class:`Workload`; ``--set`` texts, or a user's own script -> :class:`Job`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.load import LoadMode, LoadSource, LoadTerms, Scenario
from orchestrator.core.model.workload import (
    Direction,
    Gate,
    Job,
    Metric,
    Parameter,
    ParameterType,
    ParameterValue,
    Per,
    Ranks,
    SampleSource,
    Shape,
    Workload,
)
from orchestrator.parsing.inputs.container_schema import container_spec
from orchestrator.parsing.inputs.validation import validate_document
from orchestrator.parsing.inputs.workloads.command_line import NO_COMMAND, PythonCall, job_name
from orchestrator.parsing.inputs.workloads.parameter_rules import (
    contradicting_presets,
    read_rules,
    require_no_contradiction,
)
from orchestrator.parsing.inputs.workloads.parameters import check_value, expected_text, parse_value
from orchestrator.parsing.inputs.workloads.prediction_sources import (
    make_inference,
    make_training,
    misnamed,
)
from orchestrator.parsing.inputs.workloads.workload_schema import (
    LoadEntry,
    MetricEntry,
    ParameterEntry,
    SamplesEntry,
    WorkloadFile,
)
from orchestrator.parsing.inputs.yaml_source import (
    Document,
    InputProblem,
    Path,
    parse_yaml,
    refuse_input,
)

NO_RULES = "none"
_LOAD_NUMBERS = ("target_qps", "min_duration")
_LOAD_CHOICES = {"scenario": tuple(Scenario), "mode": tuple(LoadMode)}


def load_workload(data: str | bytes, source: str, folder: str) -> Workload:
    """Validate a workload.yaml. ``source`` is the file name in errors; ``folder`` is what travels.

    Raises :class:`UsageError` listing every problem with file:line:column.
    """
    document = parse_yaml(data, source)
    entry = validate_document(WorkloadFile, document)
    problems: list[InputProblem] = []
    parameters = {
        name: _make_parameter(name, item, document, problems)
        for name, item in entry.parameters.items()
    }
    presets = {
        name: _make_preset(name, values, parameters, document, problems)
        for name, values in entry.presets.items()
    }
    if entry.default_preset is not None and entry.default_preset not in presets:
        what = f"default_preset: unknown preset {entry.default_preset!r}"
        remedy = did_you_mean(entry.default_preset, presets)
        problems.append(InputProblem(document.place(("default_preset",)), what, remedy))
    samples = _make_samples(entry.samples, parameters, document, problems)
    load = _make_load(entry.load, parameters, document, problems)
    training = make_training(entry.training, parameters, document, problems)
    inference = make_inference(entry.inference, parameters, document, problems)
    rules = read_rules(entry.rules, parameters, document, problems)
    if not problems:
        problems += contradicting_presets(rules, parameters, presets, document)
    if problems:
        refuse_input(problems, source)
    return Workload(
        name=entry.name,
        source=source,
        folder=folder,
        summary=entry.summary,
        entry=entry.entry,
        combine=entry.combine or "",
        shape=Shape(entry.shape),
        ranks=Ranks(per=Per(entry.ranks.per), cpu=entry.ranks.cpu),
        modules=tuple(entry.requires.modules),
        requirements=entry.requires.requirements,
        min_nodes=entry.requires.min_nodes,
        parameters=parameters,
        rules=rules,
        presets=presets,
        default_preset=entry.default_preset,
        metrics={name: _make_metric(name, item) for name, item in entry.metrics.items()},
        artifacts=tuple(entry.artifacts),
        samples=samples,
        load=load,
        training=training,
        inference=inference,
        notice=entry.notice,
        container=container_spec(entry.container),
        begins_anew=entry.begins_anew,
        failures=dict(entry.failures),
    )


def load_terms(job: Job) -> LoadTerms | None:
    """How a load generator asks for the job's samples; None if there is none."""
    source, values = job.workload.load, job.values
    if source is None or values[source.rules] == NO_RULES:
        return None
    return LoadTerms(
        rules=str(values[source.rules]),
        scenario=Scenario(str(values[source.scenario])),
        mode=LoadMode(str(values[source.mode])),
        benchmark=str(values[source.benchmark]),
        target_qps=float(values[source.target_qps]),
        min_duration_s=float(values[source.min_duration]),
        answer=source.answer,
        score=source.score,
    )


def make_job(workload: Workload, settings: Iterable[str] = ()) -> Job:
    """Decide every parameter: defaults, then the preset, then each ``key=value`` of ``settings``.

    ``preset=NAME`` picks a preset, ``preset=`` none; the last setting of a key wins; ``-`` in a key
    is ``_``. Raises :class:`UsageError` naming the parameter, the expected type, the value, and
    where the parameter is declared; of values that contradict each other, where each came from.
    """
    given = dict(_split_setting(setting) for setting in settings)
    preset = given.pop("preset", workload.default_preset or "") or None
    if preset is not None and preset not in workload.presets:
        raise UsageError(
            f"unknown preset {preset!r}",
            id="workload.unknown-preset",
            where=workload.source,
            remedy=did_you_mean(preset, workload.presets),
        )
    layers = {
        "default": {name: parameter.default for name, parameter in workload.parameters.items()},
        f"preset {preset}": workload.presets[preset] if preset else {},
        "--set": {name: _set_parameter(workload, name, text) for name, text in given.items()},
    }
    values = {name: value for layer in layers.values() for name, value in layer.items()}
    origins = {name: origin for origin, layer in layers.items() for name in layer}
    require_no_contradiction(workload, values, origins)
    return Job(workload=workload, preset=preset, values=values)


def script_job(
    words: Sequence[str],
    *,
    folder: str,
    script: str | None,
    per: Per = Per.GPU,
    cpu: int = 1,
) -> Job:
    """A command as a job, without a workload.yaml: it is started as it stands.

    ``folder`` is the project that travels. ``script`` is ``words[0]`` relative to it, or None for a
    program that is looked up on the nodes. Raises :class:`UsageError` without words.
    """
    if not words or not words[0]:
        raise UsageError("no command after --", id="run.no-command", remedy=NO_COMMAND)
    own = _own_code(job_name(words), folder, "own script" if script else "own command", per, cpu)
    program = words[0] if script is None else f"./{script}"
    return Job(workload=replace(own, program=(program, *words[1:])))


def python_job(
    call: PythonCall,
    *,
    folder: str,
    script: str | None,
    import_root: str = "",
    per: Per = Per.GPU,
    cpu: int = 1,
) -> Job:
    """What a Python runs as a job, without a workload.yaml: a launcher gives ranks to it.

    ``folder`` is the project that travels; ``script`` the call's script relative to it, or None for
    modules, code and scripts that only the nodes have. Modules are found below ``import_root``.
    """
    own = _own_code(call.name, folder, "own script", per, cpu)
    words = call.options
    if script is None:
        words = (*words, *([call.flag] if call.flag else []), call.target)
    own = replace(own, entry=script or "", python=words, import_root=import_root)
    return Job(workload=own, arguments=call.arguments)


def _own_code(name: str, folder: str, summary: str, per: Per, cpu: int) -> Workload:
    return Workload(
        name=name or "command",
        source="command line",
        folder=folder,
        summary=summary,
        own_code=True,
        ranks=Ranks(per=per, cpu=cpu),
    )


def _make_parameter(
    name: str, entry: ParameterEntry, document: Document, problems: list[InputProblem]
) -> Parameter:
    path = ("parameters", name)
    parameter = Parameter(
        name=name,
        type=ParameterType(entry.type),
        default=entry.default,
        unit=entry.unit,
        help=entry.help,
        choices=tuple(entry.choices),
        min=entry.min,
        max=entry.max,
        above=entry.above,
        below=entry.below,
        multiple_of=entry.multiple_of,
        pattern=entry.pattern,
        form=entry.form,
        place=str(document.place(path, key=True)),
    )
    default = _check_value(parameter, entry.default, (*path, "default"), document, problems)
    return replace(parameter, default=default)


def _make_preset(
    preset: str,
    values: Mapping[str, ParameterValue],
    parameters: Mapping[str, Parameter],
    document: Document,
    problems: list[InputProblem],
) -> dict[str, ParameterValue]:
    checked: dict[str, ParameterValue] = {}
    for name, value in values.items():
        path = ("presets", preset, name)
        if name in parameters:
            checked[name] = _check_value(parameters[name], value, path, document, problems)
        else:
            what = f"preset {preset}: unknown parameter {name!r}"
            place = document.place(path, key=True)
            problems.append(InputProblem(place, what, did_you_mean(name, parameters)))
    return checked


def _make_samples(
    entry: SamplesEntry | None,
    parameters: Mapping[str, Parameter],
    document: Document,
    problems: list[InputProblem],
) -> SampleSource | None:
    if entry is None:
        return None
    wanted = {"file": ParameterType.STR, "count": ParameterType.INT, "group": ParameterType.INT}
    named = {key: getattr(entry, key) for key in wanted}
    problems += misnamed("samples", named, wanted, parameters, document)
    return SampleSource(
        file=entry.file, count=entry.count, group=entry.group, any_of=tuple(entry.any_of)
    )


def _make_load(
    entry: LoadEntry | None,
    parameters: Mapping[str, Parameter],
    document: Document,
    problems: list[InputProblem],
) -> LoadSource | None:
    if entry is None:
        return None
    names = entry.model_dump()
    for key, name in names.items():
        if key not in {"answer", "score"}:
            wanted = _LOAD_CHOICES.get(key, ())
            what = _unfit_for_load(parameters.get(name), key, wanted)
            if what:
                remedy = did_you_mean(name, parameters) if name not in parameters else ""
                place = document.place(("load", key))
                problems.append(InputProblem(place, f"load.{key}: parameter {name} {what}", remedy))
    return LoadSource(**names)


def _unfit_for_load(parameter: Parameter | None, key: str, known: Sequence[str]) -> str:
    """Why a parameter cannot say what section `load` wants of it; "" if it can."""
    if parameter is None:
        return "is not declared"
    wanted = ParameterType.FLOAT if key in _LOAD_NUMBERS else ParameterType.CHOICE
    if parameter.type is not wanted:
        return f"is of type {parameter.type.value}, not {wanted.value}"
    if known and (foreign := sorted(set(parameter.choices) - set(known))):
        return f"has choices other than {', '.join(known)}: {', '.join(foreign)}"
    return ""


def _check_value(
    parameter: Parameter,
    value: ParameterValue,
    path: Path,
    document: Document,
    problems: list[InputProblem],
) -> ParameterValue:
    try:
        return check_value(parameter, value)
    except ValueError as error:
        problems.append(InputProblem(document.place(path), f"{parameter.name}: {error}"))
        return value


def _make_metric(name: str, entry: MetricEntry) -> Metric:
    """A gate that nothing is held against would pass: a gated figure must come, unless the workload
    says otherwise.
    """
    gated = entry.gate is not None
    return Metric(
        name=name,
        unit=entry.unit,
        direction=Direction(entry.direction),
        required=gated if entry.required is None else entry.required,
        gate=Gate(min=entry.gate.min, max=entry.gate.max) if entry.gate else None,
        terminal=entry.terminal,
        help=entry.help,
    )


def _split_setting(setting: str) -> tuple[str, str]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"--set {setting!r} is not key=value", id="usage.set", remedy="write --set key=value"
        )
    return key.strip().replace("-", "_"), text


def _set_parameter(workload: Workload, name: str, text: str) -> ParameterValue:
    parameter = workload.parameters.get(name)
    if parameter is None:
        raise UsageError(
            f"workload {workload.name} has no parameter {name!r}",
            id="workload.unknown-parameter",
            where=f"--set {name}={text}",
            why=f"its parameters are declared in {workload.source}",
            remedy=did_you_mean(name, ["preset", *workload.parameters]),
        )
    try:
        return parse_value(parameter, text)
    except ValueError as error:
        raise UsageError(
            f"parameter {name}: {error}",
            id="workload.bad-value",
            where=f"--set {name}={text}",
            why=f"{name} is declared as {expected_text(parameter)} at {parameter.place}",
            remedy=f"orchestrate workload show {workload.name} lists the parameters",
        ) from None
