"""A suite's YAML file -> :class:`Suite`, with every mistake that can be found without a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.workload import Workload
from orchestrator.core.suite.suite_model import CycleError, Step, StepNeeds, Suite, ordered_steps
from orchestrator.parsing.inputs.capture_kinds import parse_captures
from orchestrator.parsing.inputs.suites.suite_schema import StepEntry, SuiteFile
from orchestrator.parsing.inputs.validation import validate_document
from orchestrator.parsing.inputs.workloads.jobs import make_job
from orchestrator.parsing.inputs.workloads.parameters import check_value
from orchestrator.parsing.inputs.yaml_source import (
    Document,
    InputProblem,
    parse_yaml,
    refuse_input,
)

FindWorkload = Callable[[str], Workload]


def load_suite(data: str | bytes, source: str, find_workload: FindWorkload) -> Suite:
    """Validate a suite's file. ``find_workload`` raises :class:`UsageError` for an unknown one.

    Raises :class:`UsageError` that lists every problem with file, line and nearest valid name:
    unknown keys, steps, workloads, presets and parameters, two steps of one name, and a cycle.
    """
    document = parse_yaml(data, source)
    file = validate_document(SuiteFile, document)
    problems = [
        *_name_problems(file, document),
        *_capture_problems(file, document),
        *_job_problems(file, document, find_workload),
    ]
    steps = tuple(_make_step(entry, index, document) for index, entry in enumerate(file.steps))
    if not problems:
        problems += _cycle_problem(steps, document)
    if problems:
        refuse_input(problems, source)
    return Suite(name=file.name, source=source, summary=file.summary, steps=steps)


def _make_step(entry: StepEntry, index: int, document: Document) -> Step:
    needs = entry.requires
    return Step(
        name=entry.name,
        workload=entry.workload,
        preset=entry.preset,
        parameters=entry.parameters,
        captures=tuple(entry.captures),
        optional=entry.optional,
        after=tuple(entry.after),
        needs=StepNeeds(
            nodes=needs.nodes,
            gpus=needs.gpus,
            gpu_memory_gib=needs.gpu_memory_gib,
            memory_gib=needs.memory_gib,
            tools=tuple(needs.tools),
            packages=tuple(needs.packages),
        ),
        limit_s=entry.limit_s,
        why=entry.why,
        place=str(document.place(("steps", index))),
    )


def _name_problems(file: SuiteFile, document: Document) -> Iterator[InputProblem]:
    first: dict[str, int] = {}
    names = [entry.name for entry in file.steps]
    for index, entry in enumerate(file.steps):
        place = document.place(("steps", index, "name"))
        if entry.name in first:
            line = document.place(("steps", first[entry.name], "name")).line
            what = f"two steps are called {entry.name!r} (the first at line {line})"
            yield InputProblem(place, what, "give each a name of its own")
        first.setdefault(entry.name, index)
        for number, name in enumerate(entry.after):
            if name not in names:
                here = document.place(("steps", index, "after", number))
                yield InputProblem(here, f"no step is called {name!r}", did_you_mean(name, names))


def _capture_problems(file: SuiteFile, document: Document) -> Iterator[InputProblem]:
    for index, entry in enumerate(file.steps):
        try:
            parse_captures(entry.captures)
        except UsageError as error:
            place = document.place(("steps", index, "captures"))
            yield InputProblem(place, error.what, error.remedy)


def _cycle_problem(steps: tuple[Step, ...], document: Document) -> Iterator[InputProblem]:
    try:
        ordered_steps(steps)
    except CycleError as cycle:
        index = next(i for i, step in enumerate(steps) if step.name == cycle.names[0])
        place = document.place(("steps", index, "after"))
        remedy = f"take {cycle.names[1]!r} out of its 'after'"
        yield InputProblem(place, f"steps wait for each other: {cycle}", remedy)


def _job_problems(
    file: SuiteFile, document: Document, find_workload: FindWorkload
) -> Iterator[InputProblem]:
    for index, entry in enumerate(file.steps):
        try:
            workload = find_workload(entry.workload)
        except UsageError as error:
            place = document.place(("steps", index, "workload"))
            yield InputProblem(place, error.what, error.remedy)
            continue
        problems = list(_parameter_problems(entry, index, document, workload))
        yield from problems or _contradiction(entry, index, document, workload)


def _parameter_problems(
    entry: StepEntry, index: int, document: Document, workload: Workload
) -> Iterator[InputProblem]:
    if entry.preset is not None and entry.preset not in workload.presets:
        place = document.place(("steps", index, "preset"))
        what = f"{workload.name} has no preset {entry.preset!r}"
        yield InputProblem(place, what, did_you_mean(entry.preset, workload.presets))
    for name, value in entry.parameters.items():
        path = ("steps", index, "parameters", name)
        if name not in workload.parameters:
            what = f"{workload.name} has no parameter {name!r}"
            remedy = did_you_mean(name, workload.parameters)
            yield InputProblem(document.place(path, key=True), what, remedy)
            continue
        try:
            check_value(workload.parameters[name], value)
        except ValueError as error:
            yield InputProblem(document.place(path), f"{name}: {error}")


def _contradiction(
    entry: StepEntry, index: int, document: Document, workload: Workload
) -> Iterator[InputProblem]:
    try:
        make_job(workload, _make_step(entry, index, document).settings)
    except UsageError as error:
        yield InputProblem(document.place(("steps", index)), error.what, error.remedy)
