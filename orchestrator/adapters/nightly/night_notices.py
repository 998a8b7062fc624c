"""Notices of nights: what is missing, and figures that changed."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.adapters.notify.notice import Notice, Occasion
from orchestrator.core.base.figures import format_figure
from orchestrator.core.detection.night_series import FigureFinding, FigureState
from orchestrator.core.nightly.nights import Night, alarm_name

SHOWN_FINDINGS = 20


def night_notice(name: str, night: Night) -> Notice:
    """That a night is missing, late, half-done, skipped or failed."""
    what = alarm_name(night)
    return Notice(
        occasion=Occasion.MISSING,
        subject=f"orchestrate: night {night.night} of {name} is {what}",
        text=f"{night.reason or what}\norchestrate nightly log {name}",
        run_id=night.run_ids[-1] if night.run_ids else "",
    )


def findings_notice(name: str, night: str, findings: Iterable[FigureFinding]) -> Notice | None:
    """The figures that alarm tonight and did not before; None if there are none."""
    alarming = [
        f for f in findings if f.alarms and (f.new or f.state is not FigureState.REGRESSION)
    ]
    if not alarming:
        return None
    return Notice(
        occasion=Occasion.REGRESSION,
        subject=f"orchestrate: {len(alarming)} figures of {name} alarm on {night}",
        text="\n".join(map(finding_text, alarming[:SHOWN_FINDINGS])),
    )


def finding_text(finding: FigureFinding) -> str:
    """One line: what, by how much, between which nights, and what changed there."""
    parts = [f"{finding.series}: {finding.state.value}"]
    if finding.change is not None:
        parts.append(f"{finding.change:+.1%}")
    if finding.value is not None:
        parts.append(f"tonight {format_figure(finding.value, finding.unit)}")
    if finding.last_good:
        parts.append(f"last good {finding.last_good}, first bad {finding.first_bad}")
    parts += [f"{each.what} {each.good} -> {each.bad}" for each in finding.suspects]
    parts += filter(None, (finding.reason, finding.segment_why))
    return "; ".join(parts)
