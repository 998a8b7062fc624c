"""workload.yaml -> :class:`Workload`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.load import LoadMode, LoadSource, Scenario
from orchestrator.core.model.workload import (
    Direction,
    Gate,
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
from orchestrator.parsing.inputs.workloads.parameter_rules import contradicting_presets, read_rules
from orchestrator.parsing.inputs.workloads.parameters import check_value
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
