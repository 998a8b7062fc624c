"""Looks at a stage while it runs: progress, over-saturation, engines that die."""

from __future__ import annotations

from typing import Protocol

import orchestrate_kit as kit

from ..base.arrivals import UNSTEADY
from ..base.stages import Saturation
from ..judge.saturation import SaturationWatch
from .fleet import Totals
from .settings import Settings

REPORT_S = 1.0


class WatchedRun(Protocol):
    """What a watch looks at, and may end."""

    settings: Settings

    def check(self) -> None:
        """Raises ``RuntimeError`` when an engine has died."""

    def end_stage(self) -> None:
        """Send nothing more of this stage."""


class StageWatch:
    """What all processes have done, as they report it. ``rate``: None of a load that has no one."""

    def __init__(self, run: WatchedRun, rate: float | None, planned: int) -> None:
        self._run, self._rate, self._planned = run, rate, planned
        self._seen = SaturationWatch()
        self._before = Totals()
        self._reported = Totals()
        self.saturation: Saturation | None = None
        self.failure: RuntimeError | None = None

    def see(self, totals: Totals) -> None:
        """What all processes have done so far."""
        before, self._before = self._before, totals
        tokens = totals.first_tokens - before.first_tokens
        self._seen.saw_in_flight(totals.at_s, totals.in_flight)
        if tokens:
            ttft_s = (totals.ttft_s - before.ttft_s) / tokens
            self._seen.saw_first_token(totals.at_s, ttft_s)
        if totals.at_s - self._reported.at_s >= REPORT_S:
            self._report(totals)
        self._check(totals)

    def _check(self, totals: Totals) -> None:
        if self.saturation is not None or self.failure is not None:
            return
        try:
            self._run.check()
        except RuntimeError as error:
            self.failure = error
            self._run.end_stage()
            return
        sending = totals.at_s <= self._run.settings.duration and self._rate is not None
        if not sending or self._run.settings.arrival in UNSTEADY:
            return
        self.saturation = self._seen.check(totals.at_s, self._rate or 0.0)
        if self.saturation is not None:
            self._run.end_stage()

    def _report(self, totals: Totals) -> None:
        before, self._reported = self._reported, totals
        seconds = totals.at_s - before.at_s
        kit.progress(
            totals.completed + totals.failed,
            max(self._planned, totals.due),
            "requests",
            requests_per_s=round((totals.completed - before.completed) / seconds, 2),
            output_tokens_per_s=round((totals.output_tokens - before.output_tokens) / seconds, 1),
            in_flight=totals.in_flight,
            failed=totals.failed,
        )
