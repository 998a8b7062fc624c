"""From options to a request: every mistake in the input is found here, before any contact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import click

from orchestrator.adapters.catalog.bundled import bundled_kit, bundled_packages
from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.catalog.project import open_script
from orchestrator.adapters.loadgen.installed import require_loadgen
from orchestrator.adapters.loadgen.load_plan import require_samples
from orchestrator.adapters.store.data_set import sample_set
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.sync.code_snapshot import (
    Snapshot,
    project_parts,
    take_snapshot,
    workload_parts,
)
from orchestrator.adapters.sync.ignore_file import line_for
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE
from orchestrator.cli.load_cluster import load_cluster
from orchestrator.cli.options.job_options import DEFAULT_PRICES, JobOptions
from orchestrator.cli.options.option_values import parse_budgets, parse_env, parse_launcher
from orchestrator.core.base.errors import UsageError
from orchestrator.core.kubernetes.run_pods import describe_pods
from orchestrator.core.launchers.plain import DIRECT
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.load import LoadTerms
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.prices import Prices
from orchestrator.core.model.request import RunRequest, SampleSet
from orchestrator.core.model.workload import Job, Workload
from orchestrator.core.planning.planning import Refusal, assumed_finding, make_plan
from orchestrator.parsing.inputs.capture_kinds import parse_captures
from orchestrator.parsing.inputs.container_choice import contained_cluster
from orchestrator.parsing.inputs.node_makers import made_by, made_cluster
from orchestrator.parsing.inputs.pods.pod_cluster import pods_of
from orchestrator.parsing.inputs.workloads.command_line import (
    refuse_misunderstandings,
    with_interpreter,
)
from orchestrator.parsing.inputs.workloads.jobs import load_terms, make_job

ANY_SCRIPT = "train.py"
MAX_NAMED_FILES = 100


def load_request(
    options: JobOptions,
    words: tuple[str, ...],
    *,
    run_id: str,
) -> RunRequest:
    """The request, without the digest of the code. Raises :class:`UsageError`."""
    catalog = Catalog.from_environment(os.environ)
    cluster = load_cluster(options.cluster, options.nodes)
    job = _load_job(catalog, options, words)
    if words:
        cluster = with_interpreter(cluster, words)
    launcher, passed, cluster = _nodes_of_run(options, cluster, job.workload, run_id)
    request = RunRequest(
        run_id=run_id,
        cluster=cluster,
        job=job,
        launcher=launcher,
        script_launcher=DIRECT.name,
        launcher_options=passed,
        ranks_per_node=options.ranks_per_node,
        budgets=parse_budgets(options.budgets, options.timeout, options.unattended),
        entry=_entry_path(job),
        env=parse_env(options.env, os.environ),
        exclusive=options.exclusive,
        samples=(samples := sample_set(job)),
        load=_load_terms(job, samples),
        prices=_price_list(catalog, options.prices, cluster),
        captures=parse_captures(options.captures),
        fabric_probe=options.fabric_probe,
        fabric_cache=not options.no_cache,
    )
    assume_plan(request)
    return request


def _nodes_of_run(
    options: JobOptions, cluster: Cluster, workload: Workload, run_id: str
) -> tuple[str, tuple[str, ...], Cluster]:
    """(launcher, what is passed on to it, the cluster with its containers or pods). Raises
    :class:`UsageError`.
    """
    cluster = contained_cluster(cluster, workload, options.container, options.container_engine)
    launcher, passed = parse_launcher(options.launcher, options.launcher_options, os.environ)
    return launcher, passed, made_cluster(launcher, cluster, passed, run_id)


def makes_nodes(request: RunRequest) -> bool:
    """Whether the run makes its nodes: before it there is none to ask."""
    return made_by(request.launcher)


def pods_planned(request: RunRequest) -> dict[str, str]:
    """The pods that the run would make, as names and values; empty for other runs."""
    return describe_pods(pods_of(request)) if makes_nodes(request) else {}


def _price_list(catalog: Catalog, name: str, cluster: Cluster) -> Prices | None:
    """Read if it was asked for, or if something here can be priced: energy of GPUs, nodes' hours.
    Raises :class:`UsageError`.
    """
    priced = any(n.gpus.count != 0 or n.price_per_hour is not None for n in cluster.workers)
    return catalog.prices(name) if priced or name != DEFAULT_PRICES else None


def _load_terms(job: Job, samples: SampleSet | None) -> LoadTerms | None:
    """How a load generator asks, if it can for these samples."""
    terms = load_terms(job)
    if terms is not None and samples is not None:
        require_samples(terms, samples.total)
    return terms


def require_load_generator(request: RunRequest) -> None:
    """Before a run: install LoadGen where that is ours to do. Raises :class:`UsageError`."""
    if request.load is not None:
        require_loadgen(lambda text: click.echo(f"orchestrate: {text}", err=True))


def request_for_any_script(options: JobOptions, *, run_id: str) -> RunRequest:
    """A request for a script that nobody named, to be planned but never run."""
    script = Workload(name="any script", source="-", folder="-", entry=ANY_SCRIPT)
    cluster = load_cluster(options.cluster, options.nodes)
    launcher, passed, cluster = _nodes_of_run(options, cluster, script, run_id)
    return RunRequest(
        run_id=run_id,
        cluster=cluster,
        job=Job(workload=script),
        launcher=launcher,
        script_launcher=DIRECT.name,
        launcher_options=passed,
        ranks_per_node=options.ranks_per_node,
        budgets=parse_budgets(options.budgets, options.timeout, options.unattended),
        entry=ANY_SCRIPT,
        env=parse_env(options.env, os.environ),
        exclusive=options.exclusive,
    )


def assume_plan(request: RunRequest) -> Plan:
    """The plan if every node is as the inventory says. Raises :class:`UsageError`."""
    findings = {spec.name: assumed_finding(spec) for spec in request.cluster.workers}
    decided = make_plan(request, findings, {})
    if isinstance(decided, Refusal):
        problem = decided.problem
        raise UsageError(problem.message, id=problem.id, remedy=problem.remedy)
    return decided


def take_code(layout: Layout, job: Job) -> Snapshot:
    """The code that travels with ``job``.

    Raises :class:`UsageError`, also if a rule leaves out what the job begins with. A file that its
    arguments name and that is left out is in the snapshot's warnings.
    """
    folder = Path(job.workload.folder)
    begins, named = _begins_with(job), _named_files(job, folder)
    if job.workload.own_code:
        parts = project_parts(folder, bundled_kit(), layout.home, (*begins, *named))
    else:
        parts = workload_parts(folder, bundled_packages(), begins)
    snapshot = take_snapshot(parts, layout.snapshots)
    for path, rule in snapshot.left_out.items():
        what = f"{path} is left out by {rule}: the nodes would not have it"
        way = f"change that rule, or write {line_for(path)} into {IGNORE_FILE}"
        if path in begins:
            remedy = f"{way}; orchestrate sync --dry-run shows what travels"
            raise UsageError(what, id="run.left-out", where=folder, remedy=remedy)
        snapshot.warnings += (f"{what}; {way}",)
    return snapshot


def _begins_with(job: Job) -> tuple[str, ...]:
    """Paths in the job's folder without which it cannot begin."""
    workload = job.workload
    program = workload.program[:1] if workload.own_code else ()
    scripts = (word.removeprefix("./") for word in program if word.startswith("./"))
    begins = (workload.entry, workload.requirements, *scripts, *_module_files(workload))
    return tuple(filter(None, begins))


def _module_files(workload: Workload) -> Iterator[str]:
    """The file that ``-m`` begins with, relative to the project; nothing for one of the nodes."""
    if workload.python[-2:-1] != ("-m",):
        return
    module = PurePosixPath(workload.import_root, *workload.python[-1].split("."))
    for path in (module / "__main__.py", module.with_suffix(".py")):
        if (Path(workload.folder) / path).is_file():
            yield path.as_posix()
            return


def _named_files(job: Job, folder: Path) -> tuple[str, ...]:
    """The files in ``folder`` that arguments name (also behind ``=``), relative to it."""
    here = Path.cwd().resolve()
    words = (*job.workload.program[1:], *job.arguments)[:MAX_NAMED_FILES]
    paths = [Path(os.path.normpath(here / word.rpartition("=")[2])) for word in words]
    inside = (path for path in paths if path.is_relative_to(folder) and _is_file(path))
    return tuple(path.relative_to(folder).as_posix() for path in inside)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a long argument that is no path
        return False


def _entry_path(job: Job) -> str:
    """The script's path in the snapshot: a workload travels as a folder of its own name."""
    workload = job.workload
    return workload.entry if workload.own_code else f"{Path(workload.folder).name}/{workload.entry}"


def _load_job(catalog: Catalog, options: JobOptions, words: tuple[str, ...]) -> Job:
    if options.workload and words:
        what = f"both --workload {options.workload} and the command {words[0]!r} were given"
        raise UsageError(what, id="run.two-jobs", remedy="give one of them; --set sets parameters")
    if options.workload:
        if options.workdir is not None:
            what = "--workdir is for scripts of your own; a workload brings its folder"
            raise UsageError(what, id="run.workdir")
        return make_job(catalog.workload(options.workload), options.settings)
    if not words:
        remedy = "orchestrate --cluster C --workload W, or orchestrate run --cluster C -- SCRIPT"
        raise UsageError("nothing to run was given", id="run.no-job", remedy=remedy)
    if options.settings:
        what = "--set is for workloads; a script takes its own arguments"
        raise UsageError(what, id="run.set", remedy=f"-- {words[0]} --name value")
    refuse_misunderstandings(words, options.launcher)
    workdir = Path(options.workdir) if options.workdir is not None else None
    return open_script(words, cwd=Path.cwd(), workdir=workdir)
