"""What the figures of a night say, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.adapters.nightly.night_figures import judge_figures, measures_again
from orchestrator.adapters.nightly.night_notices import finding_text, findings_notice
from orchestrator.adapters.nightly.schedule_store import NightlyFolder
from orchestrator.adapters.notify.outbox import try_notice
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import OrchestrateError


def judge_night(
    layout: Layout, folder: NightlyFolder, night: str, say: Callable[[str], None], *, last: bool
) -> bool:
    """Whether to measure again; else figures that alarm are said and notified. It never fails the
    night. ``last``: it was measured for the last time.
    """
    try:
        findings = judge_figures(layout, folder, night, last=last)
    except (OSError, OrchestrateError) as error:
        say(f"warning: the figures of {night} were not judged: {error}")
        return False
    if not last and measures_again(findings):
        return True
    for finding in findings:
        if finding.alarms:
            say(finding_text(finding))
    notice = findings_notice(folder.name, night, findings)
    if notice is not None:
        try_notice(layout, notice, say)
    return False
