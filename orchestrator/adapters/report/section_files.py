"""The sections that workloads add to a run's report, read from what its nodes sent home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.regular_files import read_regular
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.replies.report_sections import MAX_BYTES, ReportSections, parse_sections

FILE = "report_sections.json"
MAX_NODES = 16
# What the workload made of all nodes' outputs lies beside their folders.
COMBINED = ""
CAPTURES = "captures"


@dataclass(frozen=True, slots=True)
class NodeSections:
    """One node's sections, or why they cannot be shown."""

    node: str
    content: ReportSections | None
    trouble: str = ""


def read_sections(folder: RunFolder) -> tuple[NodeSections, ...]:
    """Of the last attempt, in the order of the nodes' names, at most ``MAX_NODES``; and those of
    captures.
    """
    captured = _read_document(CAPTURES, folder.captures)
    return (*tuple(_of_nodes(folder))[:MAX_NODES], *captured)


def _of_nodes(folder: RunFolder) -> Iterator[NodeSections]:
    try:
        names = sorted(path.name for path in folder.artifacts.iterdir())
    except OSError:
        return
    for name in [COMBINED, *names]:
        if ".attempt-" not in name:
            yield from _read_document(name, folder.artifacts / name)


def _read_document(name: str, folder: Path) -> Iterator[NodeSections]:
    """Of one folder, if it has sections."""
    try:
        data = read_regular(folder / FILE, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield NodeSections(name, None, f"{FILE}: {error.strerror or error}")
        return
    try:
        yield NodeSections(name, parse_sections(data, where=f"{name}: {FILE}"))
    except UsageError as error:
        yield NodeSections(name, None, f"{FILE}: {error.why}")
