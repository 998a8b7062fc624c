"""The simulation can fail: each of these bugs, made by hand, is caught within a few seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.core.run import recording
from orchestrator.core.run.events import Launched, Swept
from orchestrator.core.run.kit_reports import Reported
from orchestrator.core.run.state import RunState
from orchestrator.engine import run
from orchestrator.engine.node import follower
from orchestrator.engine.node import log_stream as watching
from orchestrator.engine.node.follower import NodeFollower
from orchestrator.engine.node.lease_renewal import NodeLease
from orchestrator.engine.node.log_stream import Watcher
from orchestrator.engine.node.node_session import NodeSession
from orchestrator.engine.run import _Engine
from tests.simulation import coordinator
from tests.simulation.agent import FakeAgent
from tests.simulation.plans import plan_of
from tests.simulation.simulation import simulate

pytestmark = pytest.mark.slow

ENOUGH_SEEDS = 300
Break = Callable[[pytest.MonkeyPatch], None]


def _violates(seed: int) -> bool:
    return bool(simulate(plan_of(seed)).violations)


def _forget_the_epoch(patch: pytest.MonkeyPatch) -> None:
    def fenced_fields(self: NodeSession, later: int = 0) -> dict[str, object]:
        return {**self.named_fields(), "epoch": 2 + later}

    patch.setattr(NodeSession, "fenced_fields", fenced_fields)


def _keep_the_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run, "EPOCH_STEP", 0)


def _launch_twice(patch: pytest.MonkeyPatch) -> None:
    """An agent that does not remember whom it has started before."""
    honest = FakeAgent._op_launch

    def op_launch(self: FakeAgent, request: dict[str, Any], payload: bytes) -> Any:
        known = self._share(request).attempts.get(request["attempt"])
        if known is not None:
            known.supervisor = None
        return honest(self, request, payload)

    patch.setattr(FakeAgent, "_op_launch", op_launch)


def _drop_a_log_byte(patch: pytest.MonkeyPatch) -> None:
    spool = coordinator._WatchedSpool
    honest = spool.append

    def append(self: Any, name: str, offset: int, data: bytes) -> None:
        honest(self, name, offset, data if offset else data[:-1])

    patch.setattr(spool, "append", append)


def _ignore_gaps(patch: pytest.MonkeyPatch) -> None:
    """A new watch begins at the end of the present chunk, whatever was written of it."""
    honest = Watcher._take_log

    def take_log(self: Watcher, event: Any) -> None:
        honest(self, event)
        self._cursors[str(event.fields["file"])] += 1

    patch.setattr(Watcher, "_take_log", take_log)


def _skip_the_sweep(patch: pytest.MonkeyPatch) -> None:
    async def sweep_attempt(self: NodeFollower, state: RunState) -> None:
        del state
        self._session.post(Swept(node=self._session.name, clean=True))

    patch.setattr(NodeFollower, "sweep_attempt", sweep_attempt)


def _collect_too_early(patch: pytest.MonkeyPatch) -> None:
    async def drained(self: Watcher) -> None:
        del self

    patch.setattr(Watcher, "drained", drained)


def _journal_too_little(patch: pytest.MonkeyPatch) -> None:
    honest = run._is_decisive
    patch.setattr(
        run, "_is_decisive", lambda event: honest(event) and not isinstance(event, Launched)
    )


def _forget_that_reports_repeat(patch: pytest.MonkeyPatch) -> None:
    honest = recording._record_figure

    def record_figure(state: RunState, event: Reported) -> RunState:
        forgotten = state.positions.with_item((event.node, event.rank), 0)
        return honest(_replaced(state, positions=forgotten), event)

    patch.setattr(recording, "_record_figure", record_figure)
    patch.setattr(watching.Spool, "sizes", lambda _: {})
    patch.setattr(follower, "Watcher", _without_positions(Watcher))


def _replaced(state: RunState, **fields: Mapping[tuple[str, int], int]) -> RunState:
    from dataclasses import replace

    return replace(state, **fields)  # type: ignore[arg-type]


def _without_positions(watcher: type[Watcher]) -> Callable[..., Watcher]:
    def make(*args: Any, positions: Mapping[int, int], **options: Any) -> Watcher:
        del positions
        return watcher(*args, positions={}, **options)

    return make


def _lie_about_success(patch: pytest.MonkeyPatch) -> None:
    from orchestrator.core.verdict import verdict

    patch.setattr(verdict, "failure_of", lambda _: None)


def _never_renew(patch: pytest.MonkeyPatch) -> None:
    def keep_renewed(self: NodeLease) -> None:
        del self

    patch.setattr(NodeLease, "keep_renewed", keep_renewed)


def _wait_without_a_deadline(patch: pytest.MonkeyPatch) -> None:
    async def next_event(self: _Engine) -> Any:
        return run._raised_or_event(await self._queue.get())

    patch.setattr(_Engine, "_next_event", next_event)


def _leave_tasks_behind(patch: pytest.MonkeyPatch) -> None:
    async def close(self: NodeFollower) -> None:
        del self
        await asyncio.sleep(0)

    patch.setattr(NodeFollower, "close", close)


BREAKS: dict[str, Break] = {
    function.__name__.strip("_").replace("_", "-"): function
    for function in (
        _forget_the_epoch,
        _keep_the_epoch,
        _launch_twice,
        _drop_a_log_byte,
        _ignore_gaps,
        _skip_the_sweep,
        _collect_too_early,
        _journal_too_little,
        _forget_that_reports_repeat,
        _lie_about_success,
        _never_renew,
        _wait_without_a_deadline,
        _leave_tasks_behind,
    )
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_bug_is_caught(name: str) -> None:
    """A seed that violates an invariant with the bug is sound without it."""
    with pytest.MonkeyPatch.context() as patch:
        BREAKS[name](patch)
        caught_by = next(filter(_violates, range(ENOUGH_SEEDS)), None)

    assert caught_by is not None, f"{ENOUGH_SEEDS} seeds did not catch it"
    assert not _violates(caught_by)
