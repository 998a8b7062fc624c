"""Each step of a suite as the run that it would be, checked against what the nodes are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.catalog.catalog import read_bounded
from orchestrator.cli.load_cluster import load_cluster
from orchestrator.cli.load_request import load_request
from orchestrator.cli.options.job_options import JobOptions
from orchestrator.cli.run_words import UNWATCHED, job_words
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import (
    Refusal,
    declared_environment,
    declared_interpreter,
    make_plan,
)
from orchestrator.core.suite.step_needs import Equipment, unmet_needs
from orchestrator.core.suite.suite_model import Step, Suite
from orchestrator.engine.node.python_environment import requirements_of
from orchestrator.engine.oneshot.find_tools import find_tools
from orchestrator.engine.oneshot.interruptible import run_interruptibly
from orchestrator.engine.oneshot.probe_nodes import Surveyed, SurveyLimits, survey

CONNECT_S = 20.0
FANOUT = 128
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found of the nodes, and why each step that cannot run here cannot. ``requirements``:
    what environments are built from, by workload.
    """

    answers: Sequence[Surveyed]
    blocked: Mapping[str, str]
    requirements: Mapping[str, str]


def survey_suite(suite: Suite, cluster: str, nodes: str, left_out: Iterable[str]) -> Survey:
    """Plan every step but those ``left_out`` on what the nodes are, each asked once.

    Raises :class:`UsageError` for the cluster, and :class:`PreflightError` where no node answers.
    """
    selected = load_cluster(cluster, nodes)
    steps = [step for step in suite.steps if step.name not in set(left_out)]
    requests, blocked = _load_requests(steps, cluster, nodes)
    answers, tools = run_interruptibly(_ask_nodes(selected.workers, steps, requests.values()))
    if all(answer.facts is None for answer in answers):
        raise PreflightError(
            "no node answers",
            id="suite.nodes",
            where=selected.name,
            why="; ".join(answer.error.what for answer in answers[:3] if answer.error),
            remedy=f"orchestrate probe --cluster {cluster}",
        )
    for name, request in requests.items():
        if reason := _why_not(suite.step(name), request, answers, tools):
            blocked[name] = reason
    requirements = _requirement_texts(requests.values())
    return Survey(answers=answers, blocked=blocked, requirements=requirements)


def _load_requests(
    steps: Iterable[Step], cluster: str, nodes: str
) -> tuple[dict[str, RunRequest], dict[str, str]]:
    """The request of each step, or why the inventory alone does not let it run."""
    requests: dict[str, RunRequest] = {}
    blocked: dict[str, str] = {}
    for step in steps:
        try:
            requests[step.name] = load_request(step_options(step, cluster, nodes), (), run_id="")
        except UsageError as error:
            blocked[step.name] = error.what
    return requests, blocked


def _requirement_texts(requests: Iterable[RunRequest]) -> dict[str, str]:
    """Workload -> the text of its requirements, of those that have some."""
    workloads = (request.job.workload for request in requests)
    return {
        workload.name: _text_of(Path(workload.folder) / workload.requirements)
        for workload in workloads
        if workload.requirements
    }


def step_options(step: Step, cluster: str, nodes: str) -> JobOptions:
    """The options of the run that a step is."""
    return JobOptions(
        cluster=cluster,
        nodes=nodes,
        workload=step.workload,
        settings=step.settings,
        env=(),
        launcher="auto",
        ranks_per_node=None,
        workdir=None,
        exclusive=False,
        timeout=None,
        unattended=None,
        budgets=(),
        captures=step.captures,
    )


def step_words(step: Step, cluster: str, nodes: str, run_id: str) -> list[str]:
    """The command line of that run."""
    captures = ["--capture", ",".join(step.captures)] if step.captures else []
    what = [*job_words(step.workload, nodes, step.settings), *captures]
    return ["run", "--cluster", cluster, *what, "--run-id", run_id, *UNWATCHED]


async def _ask_nodes(
    nodes: Sequence[NodeSpec], steps: Iterable[Step], requests: Iterable[RunRequest]
) -> tuple[list[Surveyed], dict[str, frozenset[str]]]:
    """What every node has, and which of the tools that steps need."""
    modules = {name for request in requests for name in request.job.workload.modules}
    modules |= {name for step in steps for name in step.needs.packages}
    tools = sorted({tool for step in steps for tool in step.needs.tools})
    limits = SurveyLimits(connect_s=CONNECT_S, width=FANOUT, modules=tuple(sorted(modules)))
    async with asyncio.TaskGroup() as group:
        answers = group.create_task(survey(nodes, limits, always_python=True))
        found = group.create_task(
            find_tools(nodes, tools, connect_timeout_s=CONNECT_S, width=FANOUT)
        )
    return answers.result(), found.result()


def _why_not(
    step: Step,
    request: RunRequest,
    answers: Sequence[Surveyed],
    tools: Mapping[str, frozenset[str]],
) -> str:
    """What keeps the step from running on these nodes; empty if nothing does."""
    facts = {answer.node: answer.facts for answer in answers if answer.facts is not None}
    failed = {answer.node: answer.error.what for answer in answers if answer.error is not None}
    built = {
        spec.name: requirements_of(spec, request.job.workload) for spec in request.cluster.workers
    }
    findings = {
        name: NodeFinding(
            facts=found,
            interpreter=declared_interpreter(request.cluster.node(name)),
            modules=found.modules if built[name] is None else None,
            environment=declared_environment(request.cluster.node(name)),
        )
        for name, found in facts.items()
    }
    plan = make_plan(request, findings, failed)
    if isinstance(plan, Refusal):
        return plan.problem.message
    packages = {name: _packages(built[name], found) for name, found in facts.items()}
    return unmet_needs(step.needs, plan, Equipment(facts=facts, tools=tools, packages=packages))


def _packages(requirements: Path | None, facts: Facts) -> frozenset[str]:
    """What the ranks can import: what their environment will be built from, or what was found."""
    if requirements is None:
        return frozenset(facts.modules)
    names = _REQUIREMENT.findall(_text_of(requirements))
    return frozenset(re.sub(r"[-.]", "_", name).lower() for name in names)


def _text_of(requirements: Path) -> str:
    """Empty where it cannot be read: building the environment will say why."""
    try:
        return read_bounded(requirements).decode("utf-8", "replace")
    except UsageError:
        return ""
