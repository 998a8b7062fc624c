"""Drill after drill: each performed, judged and cleared up before the next one begins."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.adapters.store.run_list import write_result
from orchestrator.core.base.errors import BusyError, ExitCode, OrchestrateError, PreflightError
from orchestrator.core.drill_promises import (
    NOTHING_LEFT,
    Drill,
    DrillFinding,
    DrillOutcome,
    PromiseKept,
    judge_all,
)
from orchestrator.core.run.events import StopKind
from orchestrator.engine.drills.aftermath import Left, clear_up, reach_all
from orchestrator.engine.drills.faults import PROCEDURES, NotPossible
from orchestrator.engine.drills.stage import Scene, Setting
from orchestrator.engine.support.interrupts import Interrupts

DRILL_S = 150.0


class DrillObserver(Protocol):
    """Who hears how the drills go. Must be quick."""

    def begun(self, drill: Drill, node: str) -> None:
        """The drill begins; ``node`` is empty where its fault is on no node."""

    def ended(self, outcome: DrillOutcome) -> None:
        """The drill is over, and cleared up if that was possible."""


class DrillInterrupted(OrchestrateError):
    """The user asked for the end of the drills."""

    exit_code = ExitCode.INTERRUPTED


@dataclass(frozen=True, slots=True)
class SeriesEnding:
    """What came of all drills; ``error`` is what kept the rest from being run."""

    outcomes: tuple[DrillOutcome, ...]
    error: OrchestrateError | None

    @property
    def exit_code(self) -> ExitCode:
        if self.error is not None:
            return self.error.exit_code
        broken = any(outcome.verdict is PromiseKept.BROKEN for outcome in self.outcomes)
        return ExitCode.RUN_FAILED if broken else ExitCode.DONE


async def perform_drills(
    setting: Setting,
    pairs: Sequence[tuple[Drill, str]],
    interrupts: Interrupts,
    audience: DrillObserver,
) -> SeriesEnding:
    """Every drill on its node, one at a time. After an interrupt, and when a node cannot be reached
    or is held by another run, the rest is not run.
    """
    series = _Series(setting, audience)
    with interrupts.handled(series.on_stop, series.on_leave):
        return await series.run(pairs)


class _Series:
    def __init__(self, setting: Setting, audience: DrillObserver) -> None:
        self._setting = setting
        self._audience = audience
        self._scene: Scene | None = None
        self._error: OrchestrateError | None = None

    def on_stop(self, kind: StopKind, by: str) -> None:
        del kind
        self._error = self._error or DrillInterrupted(f"interrupted by {by}", id="OR-DRILL-002")
        self.on_leave()

    def on_leave(self) -> None:
        """Whatever the user asks is asked of the run that is under way."""
        if self._scene is not None:
            self._scene.interrupts.ask(signal.SIGINT)

    async def run(self, pairs: Sequence[tuple[Drill, str]]) -> SeriesEnding:
        self._unreachable(await reach_all(self._setting.request, self._setting.clock))
        outcomes = []
        for drill, node in pairs:
            if self._error is None:
                self._audience.begun(drill, node)
                outcome = await self._one(drill, node)
            else:
                outcome = DrillOutcome(drill=drill, node=node, reason=self._error.what)
            self._audience.ended(outcome)
            outcomes.append(outcome)
        return SeriesEnding(tuple(outcomes), self._error)

    async def _one(self, drill: Drill, node: str) -> DrillOutcome:
        clock = self._setting.clock
        began = clock.monotonic()
        self._scene = scene = Scene(self._setting, drill, node)
        try:
            reason, why = await self._perform(scene)
        finally:
            self._scene = None
            await scene.close()
        left = await self._clear_up(scene)
        judged = judge_all(drill, _with_leftovers(scene, left), why)
        if reason:
            # Only what is left of a drill that was not run can be held against anybody.
            asked = isinstance(self._error, DrillInterrupted)
            unclean = not asked and any(not one.unreachable for one in left)
            judged = tuple(j for j in judged if unclean and j.promise.name == NOTHING_LEFT)
        outcome = DrillOutcome(
            drill=drill, node=node, run_id=scene.request.run_id, reason=reason, judged=judged
        )
        folder = self._keep(scene, outcome, left)
        seconds = round(clock.monotonic() - began, 3)
        return replace(outcome, folder=folder, seconds=seconds)

    async def _perform(self, scene: Scene) -> tuple[str, str]:
        """Why the drill was not run, and why it did not get to its end; empty if it did."""
        try:
            async with asyncio.timeout(DRILL_S):
                await PROCEDURES[scene.drill.name](scene)
        except NotPossible as error:
            return str(error), ""
        except (BusyError, PreflightError) as error:
            self._error = self._error or error
            return error.what, ""
        except OrchestrateError as error:
            return self._interrupted, error.what
        except TimeoutError:
            return self._interrupted, f"the drill was not over within {DRILL_S:g} s"
        except OSError as error:
            return self._interrupted, str(error)
        return self._interrupted, ""

    @property
    def _interrupted(self) -> str:
        """What was measured while the user interfered says nothing."""
        return self._error.what if isinstance(self._error, DrillInterrupted) else ""

    async def _clear_up(self, scene: Scene) -> list[Left]:
        if not scene.folder.path.exists():
            return []
        left = await clear_up(scene.folder, scene.request, scene.clock)
        self._unreachable(left)
        return left

    def _unreachable(self, left: Sequence[Left]) -> None:
        gone = [one for one in left if one.unreachable]
        if gone and self._error is None:
            what = "; ".join(f"{one.node} {one.wrong}" for one in gone)
            remedy = f"repair it, or leave it out: --nodes '!{gone[0].node}'"
            self._error = PreflightError(what, id="OR-DRILL-001", remedy=remedy)

    def _keep(self, scene: Scene, outcome: DrillOutcome, left: Sequence[Left]) -> str:
        """The run's folder if it tells of a broken promise, or is needed to clear up later; else it
        is removed.
        """
        path = scene.folder.path
        if not path.exists():
            return ""
        if outcome.verdict is not PromiseKept.BROKEN and not left:
            shutil.rmtree(path, ignore_errors=True)
            return ""
        if scene.result is not None:
            write_result(scene.folder, replace(scene.result, report=""))  # none was made
        return str(path)


def _with_leftovers(scene: Scene, left: Sequence[Left]) -> dict[str, DrillFinding]:
    wrong = "; ".join(f"{one.node}: {one.wrong}" for one in left)
    return {**scene.findings, NOTHING_LEFT: DrillFinding(wrong=wrong)}
