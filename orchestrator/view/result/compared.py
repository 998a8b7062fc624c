"""A run's figures beside those of earlier runs, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.base.figures import format_figure
from orchestrator.core.history.earlier_runs import MetricComparison
from orchestrator.view.terminal.terminal import GREEN, RED, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun

NOTABLE = 0.01  # a change below one per cent is neither green nor red


def comparison_lines(compared: Sequence[MetricComparison], *, color: bool = False) -> list[str]:
    """A heading and a line for each figure; nothing where no earlier run has any."""
    if not compared:
        return []
    runs = max(metric.runs for metric in compared)
    return [f"  against the median of {count_noun(runs, 'earlier run')}", *_lines(compared, color)]


def _lines(compared: Sequence[MetricComparison], color: bool) -> Iterator[str]:
    width = max(len(brief_text(metric.name, 48)) for metric in compared)
    for metric in compared:
        before = format_figure(metric.before, brief_text(metric.unit, 40))
        name = brief_text(metric.name, 48)
        yield f"    {name:<{width}}  {before}  {_change(metric, color)}".rstrip()


def _change(metric: MetricComparison, color: bool) -> str:
    if metric.change is None:
        return ""
    text = f"{100 * metric.change:+.1f} %"
    if metric.better is None or abs(metric.change) < NOTABLE:
        return text
    word = "better" if metric.better else "worse"
    return paint_text(f"{text}, {word}", GREEN if metric.better else RED, color=color)
