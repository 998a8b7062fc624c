"""A workload with ``--set`` texts, or a user's own script -> :class:`Job`.

Loads no schema: reading a workload.yaml needs one, a workload that was read before does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.load import LoadMode, LoadTerms, Scenario
from orchestrator.core.model.parameter_conflicts import find_contradictions
from orchestrator.core.model.workload import Job, ParameterValue, Per, Ranks, Workload
from orchestrator.parsing.inputs.workloads.command_line import NO_COMMAND, PythonCall, job_name
from orchestrator.parsing.inputs.workloads.parameters import expected_text, parse_value

NO_RULES = "none"


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


def require_no_contradiction(
    workload: Workload, values: Mapping[str, ParameterValue], origins: Mapping[str, str]
) -> None:
    """Raises :class:`UsageError` that names the parameters, where their values came from, why they
    do not go together and what to change.
    """
    found = find_contradictions(workload.rules, values)
    if not found:
        return
    told = [(item.told(values, origins), item.remedy(workload.parameters)) for item in found]
    (what, remedy), why = told[0], f"{found[0].rule.why} ({found[0].rule.place})"
    if len(found) > 1:
        lines = [
            f"  {one}: {item.rule.why}; {way}" for item, (one, way) in zip(found, told, strict=True)
        ]
        what = "\n".join([f"{len(found)} contradictions", *lines])
        why, remedy = f"it declares these rules in {workload.source}", ""
    where = f"workload {workload.name}"
    raise UsageError(what, id="workload.contradiction", where=where, why=why, remedy=remedy)


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
