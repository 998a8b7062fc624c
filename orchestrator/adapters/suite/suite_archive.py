"""What goes into the archive of a suite: its own files, and the runs of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.adapters.archive.read_archive import archive_digest
from orchestrator.adapters.archive.write_archive import Member, folder_members, write_archive
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_folder import SuiteFolder
from orchestrator.adapters.suite.suite_report import ArchivePlace, SuiteReport

KIND = "suite"
# Who coordinated a run from where is no evidence of anything, and may not leave this machine.
PRIVATE = frozenset(
    {"coordinator.json", "coordinator.lock", "coordinator.log", "invocation.json", "request.json"}
)


def archive_suite(layout: Layout, folder: SuiteFolder, report: SuiteReport) -> ArchivePlace:
    """Write and verify the archive. Raises ``OSError`` and ``UsageError``; what the suite did is
    not touched.
    """
    members = suite_members(layout, folder, report)
    about = {
        "suite": report.suite.name,
        "cluster": report.cluster,
        "status": report.status.value,
        "runs": {each.step: each.run_id for each in report.outcomes if each.run_id},
    }
    write_archive(folder.archive, KIND, members, made=report.ended, about=about)
    size = folder.archive.stat().st_size
    return ArchivePlace(str(folder.archive), size, archive_digest(folder.archive))


def suite_members(layout: Layout, folder: SuiteFolder, report: SuiteReport) -> list[Member]:
    """All that is evidence: the suite's own files, and those of its runs."""
    return [*_own_files(folder), *_run_files(layout, report)]


def _own_files(folder: SuiteFolder) -> Iterator[Member]:
    own = (
        folder.order,
        folder.suite,
        folder.steps,
        folder.environment,
        folder.result,
        folder.summary_markdown,
        folder.summary_html,
    )
    for path in (*own, *sorted(folder.path.glob("output/*.log"))):
        if path.is_file():
            yield Member(path.relative_to(folder.path).as_posix(), path)


def _run_files(layout: Layout, report: SuiteReport) -> Iterable[Member]:
    for run_id in (outcome.run_id for outcome in report.outcomes if outcome.run_id):
        below = f"runs/{run_id}/"
        for member in folder_members(layout.run(run_id).path, below):
            if member.path.removeprefix(below) not in PRIVATE:
                yield member
