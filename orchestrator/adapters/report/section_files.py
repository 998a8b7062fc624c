"""The sections that workloads add to a run's report, read from what its nodes sent home."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.store.layout import RunFolder
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
        data = _read_bounded(os.fspath(folder / FILE))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield NodeSections(name, None, f"{FILE}: {error.strerror or error}")
        return
    try:
        yield NodeSections(name, parse_sections(data, where=f"{name}: {FILE}"))
    except UsageError as error:
        yield NodeSections(name, None, f"{FILE}: {error.why}")


def _read_bounded(path: str) -> bytes:
    """A regular file's content, and one byte more than allowed if it is too long."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        return file.read(MAX_BYTES + 1)
