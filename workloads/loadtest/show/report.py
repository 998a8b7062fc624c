"""Everything that a load test leaves for people and programs, once its records are judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import orchestrate_kit as kit

from ..base.stages import NodeLoad
from ..judge.evaluation import StageResult, cut_short, headline
from ..load.fleet import INVALID, LoadError
from ..load.settings import Settings
from ..peers.comparison import Comparison
from .figures import figures
from .llmd_report import llmd_report
from .peer_sections import peer_document, peer_figures, peer_section
from .report_sections import report_sections
from .results import results_document

SECTIONS, RESULTS, LLMD = "report_sections.json", "loadtest.json", "llmd_report_v0.2.1.json"
CROSS_CHECK = "cross_check.json"


def publish(
    nodes: Sequence[NodeLoad],
    results: Sequence[StageResult],
    settings: Settings,
    output: Path,
    comparison: Comparison | None = None,
) -> None:
    """Metrics through the kit, and files in ``output``. Raises ``OSError``."""
    sections = report_sections(results, settings)
    for name, value, unit in figures(results, settings.arrival):
        kit.metric(name, value, unit)
    if comparison is not None:
        for name, value, unit in peer_figures(comparison):
            kit.metric(name, value, unit)
        sections["sections"].insert(1, peer_section(comparison))
        _write(output / CROSS_CHECK, peer_document(comparison))
    _write(output / RESULTS, results_document(nodes, results))
    _write(output / SECTIONS, sections)
    _write(output / LLMD, llmd_report(nodes, headline(results), settings))


def verdict(results: Sequence[StageResult]) -> LoadError | None:
    """Why the run fails; None = it does not."""
    chosen = headline(results)
    failures = chosen.summary.failures
    reasons = chosen.reasons or tuple(filter(None, [cut_short(results)]))
    if reasons:
        none_answered = failures.count and not chosen.summary.completed
        id = failures.id if none_answered else INVALID
        return LoadError(f"invalid: {'; '.join(reasons)}", id)
    return LoadError(chosen.failure, failures.id) if chosen.failure else None


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
