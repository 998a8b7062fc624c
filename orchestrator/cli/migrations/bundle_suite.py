"""A suite's run as a bundle of a migration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.adapters.catalog.catalog import Catalog, read_bounded
from orchestrator.adapters.history.choose_runs import runs_for_noise
from orchestrator.adapters.history.import_runs import read_entry
from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.run_entry import read_findings, read_interpreters
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.migration.way_back import INVENTORY, PLAYBOOK, SUITE
from orchestrator.adapters.migration.write_bundle import (
    BundleContent,
    CapturedStep,
    machine_of,
    with_power,
    write_bundle,
)
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_archive import suite_members
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    SuiteOrder,
    read_order,
    read_steps,
)
from orchestrator.cli.load_cluster import load_cluster
from orchestrator.cli.suites.conclude_suite import gather_report
from orchestrator.cli.suites.step_requests import CONNECT_S, FANOUT
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.history.comparing import RunGroup
from orchestrator.core.history.run_record import RunRecord
from orchestrator.core.migration.evidence import Machine
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import PythonKind
from orchestrator.core.suite.step_records import StepOutcome, fold_steps
from orchestrator.engine.oneshot.interruptible import run_interruptibly
from orchestrator.engine.oneshot.list_packages import list_packages

MAX_EARLIER = 20  # of each step: what tells its noise, and fits into one file


def bundle_suite(layout: Layout, folder: SuiteFolder, playbook: Path, target: Path) -> None:
    """Write what a run of a suite proved to ``target``, verified.

    Raises :class:`UsageError` for a run that cannot be read, and ``OSError``.
    """
    order = read_order(folder)
    catalog = Catalog.from_environment(os.environ, Path(order.folder))
    suite = catalog.read_suite(folder.suite, order.source)
    outcomes = fold_steps(suite, read_steps(folder))
    report = gather_report(layout, folder, order, suite, outcomes)
    store = open_history(layout)
    content = BundleContent(
        playbook=playbook.stem,
        suite=suite.name,
        cluster=order.cluster,
        nodes=order.nodes,
        project=order.folder,
        made=report.ended,
        steps=tuple(_captured(layout, store, outcome) for outcome in outcomes),
        machines=_machines(layout, outcomes),
        members=suite_members(layout, folder, report),
        restore=dict(_restored(catalog, order, folder, playbook)),
        packages=_packages(layout, order, outcomes),
    )
    make_private_dir(target.parent)
    write_bundle(target, content)


def _captured(layout: Layout, store: HistoryStore, outcome: StepOutcome) -> CapturedStep:
    run = _record(layout, outcome)
    earlier = _earlier(store, run) if run else ()
    return CapturedStep(
        name=outcome.step,
        state=outcome.state.value,
        reason=outcome.reason,
        run=run,
        earlier=earlier,
    )


def _record(layout: Layout, outcome: StepOutcome) -> RunRecord | None:
    """None for a step without a run, or whose run left nothing that can be read."""
    if not outcome.run_id:
        return None
    try:
        entry = read_entry(layout.run(outcome.run_id))
    except (OSError, ValueError, OrchestrateError):
        return None
    return with_power(entry.record, entry.result.energy)


def _earlier(store: HistoryStore, run: RunRecord) -> tuple[RunRecord, ...]:
    group = RunGroup(run.run_id, (run,))
    return runs_for_noise(store, group, group)[:MAX_EARLIER]


def _machines(layout: Layout, outcomes: tuple[StepOutcome, ...]) -> tuple[Machine, ...]:
    """Every node as the runs saw it, the last of them."""
    found: dict[str, Facts] = {}
    for outcome in outcomes:
        if outcome.run_id:
            facts, _ = read_findings(layout.run(outcome.run_id).journal)
            found |= facts
    return tuple(machine_of(found[node]) for node in sorted(found))


def _packages(
    layout: Layout, order: SuiteOrder, outcomes: tuple[StepOutcome, ...]
) -> dict[str, bytes]:
    """Of the interpreters that the runs used; a node that is gone by now has none."""
    journals = [layout.run(outcome.run_id).journal for outcome in outcomes if outcome.run_id]
    interpreters = sorted(set().union(*map(read_interpreters, journals)))
    nodes = load_cluster(order.cluster, order.nodes).workers
    listing = list_packages(nodes, interpreters, connect_timeout_s=CONNECT_S, width=FANOUT)
    return {f"{node}.txt": pins for node, pins in run_interruptibly(listing).items()}


def _restored(
    catalog: Catalog, order: SuiteOrder, folder: SuiteFolder, playbook: Path
) -> Iterator[tuple[str, bytes]]:
    """What the way back pins: inventory, suite, playbook, and requirements beside the inventory.
    Keys and files of ssh are never taken.
    """
    path = catalog.find_cluster(order.cluster)
    yield INVENTORY, read_bounded(path)
    yield SUITE, read_bounded(folder.suite)
    yield PLAYBOOK, read_bounded(playbook)
    beside = path.absolute().parent
    for file in sorted(_requirements(catalog, path)):
        if file.is_relative_to(beside) and file.is_file():
            yield file.relative_to(beside).as_posix(), read_bounded(file)


def _requirements(catalog: Catalog, inventory: Path) -> set[Path]:
    specs = catalog.read_cluster(inventory).nodes
    kind = PythonKind.REQUIREMENTS
    return {Path(spec.python.value) for spec in specs if spec.python.kind is kind}
