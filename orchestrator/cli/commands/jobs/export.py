"""``orchestrate export``: a job for clusters that other schedulers run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.job_options import job_options, pick_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.adapters.kubernetes.export_job import ExportedJob
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.base.problem import Problem
    from orchestrator.core.kubernetes.settings import PodSettings
    from orchestrator.core.model.facts import Facts
    from orchestrator.core.model.plan import Plan
    from orchestrator.core.model.request import RunRequest

MAX_PORT = 65535


@click.group()
def export() -> None:
    """Write a job as manifests for Kubernetes."""


@export.command(context_settings={"allow_interspersed_args": False})
@job_options
@click.option("--image", required=True, metavar="IMAGE", help="Has Python and what ranks import.")
@click.option(
    "--python",
    default="python3",
    show_default=True,
    metavar="PATH",
    help="The image's, 3.8 or newer, for the ranks and for what starts them.",
)
@click.option("--name", metavar="NAME", help="Of all objects.  [default: the workload's]")
@click.option("--namespace", default="", metavar="NAME", help="Else kubectl decides.")
@click.option("--queue", default="", metavar="NAME", help="Kueue's LocalQueue to wait in.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=QUANTITY",
    help="What each pod asks for besides GPUs: cpu=32, memory=200Gi, rdma/hca=1. Repeatable.",
)
@click.option(
    "--node-selector",
    multiple=True,
    metavar="KEY=VALUE",
    help="A label that machines must have. Repeatable.",
)
@click.option(
    "--toleration",
    "tolerations",
    multiple=True,
    metavar="KEY[=VALUE][:EFFECT]",
    help="A taint of machines that pods put up with. Repeatable.",
)
@click.option(
    "--pull-secret", default="", metavar="NAME", help="Secret with which the image is pulled."
)
@click.option(
    "--code",
    default="configmap",
    show_default=True,
    metavar="configmap|image|claim:NAME",
    help="Where pods find the code. A ConfigMap holds 1 MiB.",
)
@click.option(
    "--results",
    default="",
    metavar="CLAIM",
    help="PersistentVolumeClaim that keeps logs, reports, checkpoints and outputs; without one "
    "they are gone with the pods.",
)
@click.option(
    "--serving",
    "serves",
    type=click.IntRange(1, MAX_PORT),
    metavar="PORT",
    help="Servers that listen on PORT: a LeaderWorkerSet and a Service, not a JobSet.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Groups of servers, each on as many pods as the cluster has nodes.",
)
@click.option("--host-network", is_flag=True, help="Pods use the network of their machine.")
@click.option(
    "--rendezvous-port",
    "port",
    type=click.IntRange(1, MAX_PORT),
    default=29500,
    show_default=True,
    help="Where the ranks of different pods meet.",
)
@click.option("--probe", is_flag=True, help="Ask the nodes over SSH; else the inventory counts.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCRIPT ARGS...]")
def kubernetes(words: tuple[str, ...], out: Path | None, probe: bool, **given: Any) -> None:
    """Write a JobSet, or with --serving a LeaderWorkerSet, with its ConfigMaps.

    Each node of the cluster becomes a pod. Without --out everything is printed, for
    `kubectl apply --server-side -f -`. Options for the coordinator of a run, such as --unattended
    and --fabric-probe, have no effect: an exported job has none.

    \b
    orchestrate export kubernetes -C lab -W finetune --image registry/torch:2.13 --out manifests
    """
    import os

    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.load_request import load_request, take_code
    from orchestrator.view.terminal.text import brief_text

    request = load_request(pick_job(given), words, run_id="planned")
    settings = _parse_settings(request.job.workload.name, given)
    _check_options(given)
    _check_out(settings, out)
    _check_job(request, settings, probing=probe)
    snapshot = take_code(Layout.from_environment(os.environ), request.job)
    for warning in snapshot.warnings:
        click.echo(f"warning: {brief_text(warning, 300)}", err=True)
    found, failed = _ask_nodes(request) if probe else ({}, {})
    pods, plan = _plan(request, settings, snapshot.digest, found, failed)

    from orchestrator.adapters.kubernetes.export_job import export_job

    _give_out(export_job(pods, plan, settings, snapshot), out, settings)


def _parse_settings(workload: str, given: Mapping[str, Any]) -> PodSettings:
    """Raises ``UsageError``."""
    from orchestrator.core.kubernetes.settings import PodSettings
    from orchestrator.parsing.inputs.pods import pod_options

    code, claim = pod_options.parse_code_place(given["code"])
    name = given["name"] or pod_options.default_name(workload) or workload
    return PodSettings(
        name=pod_options.parse_service_name("--name", name),
        image=pod_options.parse_image(given["image"]),
        python=given["python"],
        namespace=pod_options.parse_object_name("--namespace", given["namespace"]),
        resources=pod_options.parse_resources(given["resources"]),
        node_selector=pod_options.parse_labels("--node-selector", given["node_selector"]),
        tolerations=pod_options.parse_tolerations("--toleration", given["tolerations"]),
        pull_secret=pod_options.parse_object_name("--pull-secret", given["pull_secret"]),
        code=code,
        claim=claim,
        results=pod_options.parse_object_name("--results", given["results"]),
        queue=pod_options.parse_object_name("--queue", given["queue"]),
        serves=given["serves"],
        replicas=given["replicas"],
        host_network=given["host_network"],
        port=given["port"],
    )


def _check_options(given: Mapping[str, Any]) -> None:
    """Options that would have no effect. Raises ``UsageError``."""
    from orchestrator.core.base.errors import UsageError

    if given["container"] or given["container_engine"]:
        what, remedy = "a pod is a container already", "name what it runs by --image"
        raise UsageError(what, id="export.container", where="--container", remedy=remedy)
    if given["replicas"] > 1 and given["serves"] is None:
        what, remedy = "only servers have replicas", "--serving PORT"
        raise UsageError(what, id="export.replicas", where="--replicas", remedy=remedy)


def _check_out(settings: PodSettings, out: Path | None) -> None:
    """Code that no ConfigMap holds has to be written somewhere."""
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.kubernetes.settings import CodePlace

    if settings.code is not CodePlace.CONFIGMAP and out is None:
        what = f"--code {settings.code} needs a folder to write the code to"
        raise UsageError(what, id="export.out", where="--out", remedy="--out DIR")


def _check_job(request: RunRequest, settings: PodSettings, *, probing: bool) -> None:
    from orchestrator.core.kubernetes.pods import find_obstacle

    _refuse(find_obstacle(request, settings, probing=probing), request)


def _ask_nodes(request: RunRequest) -> tuple[Mapping[str, Facts], Mapping[str, str]]:
    """Facts of the nodes that would be used, and why others are not."""
    from orchestrator.engine.oneshot.interruptible import run_interruptibly
    from orchestrator.engine.oneshot.plan_only import preview

    plan, facts = run_interruptibly(preview(request))
    failed = {excluded.node: excluded.reason for excluded in plan.excluded}
    return {share.name: facts[share.name] for share in plan.nodes}, failed


def _plan(
    request: RunRequest,
    settings: PodSettings,
    code: str,
    found: Mapping[str, Facts],
    failed: Mapping[str, str],
) -> tuple[RunRequest, Plan]:
    """The request for pods, and their plan. Raises ``UsageError``."""
    from dataclasses import replace

    from orchestrator.core.kubernetes.pods import as_pods, find_misfit, group_pods, plan_pods
    from orchestrator.core.planning.planning import Refusal

    pods = as_pods(replace(request, code=code), settings, found)
    plan = plan_pods(pods, settings, found, failed)
    if isinstance(plan, Refusal):
        raise _refusal(plan.problem, request)
    _refuse(find_misfit(group_pods(plan), settings), request)
    return pods, plan


def _refuse(problem: Problem | None, request: RunRequest) -> None:
    if problem is not None:
        raise _refusal(problem, request)


def _refusal(problem: Problem, request: RunRequest) -> UsageError:
    from orchestrator.core.base.errors import UsageError

    where = request.cluster.source
    return UsageError(problem.message, id=problem.id, where=where, remedy=problem.remedy)


def _give_out(job: ExportedJob, out: Path | None, settings: PodSettings) -> None:
    """Into the folder, or to standard output as one stream."""
    from orchestrator.adapters.kubernetes.export_job import write_job

    if out is None:
        click.echo("---\n".join(job.manifests.values()), nl=False)
        return
    for path in write_job(out, job):
        click.echo(path)
    if job.code:
        where = f"claim {settings.claim}" if settings.claim else "image, as /orchestrate/code"
        click.echo(f"next: bring the folder {out / 'code'} into the {where}", err=True)
    click.echo(f"next: kubectl apply --server-side -f {out}", err=True)
