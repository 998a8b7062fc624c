"""A bundle, verified, as evidence for the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapters.archive.read_archive import ReadArchive, read_archive
from orchestrator.adapters.migration.write_bundle import KIND, MACHINES, is_trace
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.run_record import RunRecord
from orchestrator.core.migration.evidence import Bundle, StepEvidence
from orchestrator.parsing.inputs.baseline_file import load_baseline
from orchestrator.parsing.inputs.migration.bundle_file import (
    BundleAbout,
    BundledStepEntry,
    parse_about,
    parse_machines,
)

RESTORE = "restore/"


def read_bundle(path: Path) -> tuple[Bundle, Mapping[str, bytes]]:
    """The evidence, and the files below ``restore/`` by their path there.

    Every byte of the archive is verified. Raises :class:`UsageError` for one that is damaged or
    of another kind, and ``OSError``.
    """
    archive = read_archive(path, _is_read)
    if archive.manifest.kind != KIND:
        raise _refusal(path, f"an archive of the kind {archive.manifest.kind}")
    try:
        about = parse_about(archive.manifest.about)
        machines = parse_machines(archive.files.get(MACHINES, b"{}"))
    except ValueError as error:
        raise _refusal(path, str(error)) from error
    bundle = Bundle(
        name=archive.manifest.name,
        cluster=about.cluster,
        made=archive.manifest.made,
        nodes=about.nodes,
        project=about.project,
        machines=machines,
        steps=_steps(path, archive, about),
    )
    restore = {
        name.removeprefix(RESTORE): content
        for name, content in archive.files.items()
        if name.startswith(RESTORE)
    }
    return bundle, restore


def _is_read(name: str) -> bool:
    return name == MACHINES or name.startswith((RESTORE, "records/", "earlier/"))


def _steps(path: Path, archive: ReadArchive, about: BundleAbout) -> dict[str, StepEvidence]:
    traces: dict[str, list[str]] = {}
    for file in archive.manifest.files:
        folder, _, rest = file.path.partition("/")
        run_id, _, name = rest.partition("/")
        if folder == "runs" and is_trace(name) and file.bytes:
            traces.setdefault(run_id, []).append(file.path)
    found = {}
    for name, entry in about.steps.items():
        found[name] = StepEvidence(
            name=name,
            runs=_runs(path, archive, f"records/{name}.json", entry),
            earlier=_earlier(path, archive, f"earlier/{name}.json"),
            traces=tuple(traces.get(entry.run, ())) if entry.run else (),
            reason=f"{entry.state}: {entry.reason}" if entry.reason else entry.state,
        )
    return found


def _runs(
    path: Path, archive: ReadArchive, name: str, entry: BundledStepEntry
) -> tuple[RunRecord, ...]:
    """The run that the manifest names; another one in its place is no evidence."""
    runs = _earlier(path, archive, name)
    if any(run.run_id != entry.run for run in runs):
        raise _refusal(path, f"{name} is not of the run that its manifest names")
    return runs


def _earlier(path: Path, archive: ReadArchive, name: str) -> tuple[RunRecord, ...]:
    content = archive.files.get(name)
    return load_baseline(content, f"{path}:{name}")[2] if content is not None else ()


def _refusal(path: Path, what: str) -> UsageError:
    remedy = "take a bundle that orchestrate migrate capture or verify wrote"
    return UsageError(f"not a bundle: {what}", id="migrate.bundle", where=path, remedy=remedy)
