"""What each drill does and measures, from the first contact to the verdict of its run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from orchestrator.core import drill_promises as core
from orchestrator.core.drill_promises import DrillFinding
from orchestrator.core.run.events import StopKind, StopRequested
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.engine.drills.aftermath import wait_for_end
from orchestrator.engine.drills.killable import Apart, start_apart
from orchestrator.engine.drills.stage import Scene
from orchestrator.engine.run import execute, resume

FOLLOWED_S = 30.0  # beyond its limit, so that a late takeover is measured, too


class NotPossible(Exception):
    """There is nothing here that the drill could disturb."""


async def _begin_run(scene: Scene) -> None:
    scene.create()
    scene.begin(execute)
    await scene.running()


async def kill_rank(scene: Scene) -> None:
    await _begin_run(scene)
    node, rank = scene.node, scene.rank
    at = await scene.send(f"rank-{rank}", "KILL")
    named = partial(core.names_killed_rank, node=node, rank=rank)
    await _named_and_clean(scene, at, named, rank)


async def freeze_rank(scene: Scene) -> None:
    await _begin_run(scene)
    node, rank = scene.node, scene.rank
    at = await scene.send(f"rank-{rank}", "STOP")
    result = await scene.over()
    named = partial(core.names_hanging_rank, node=node, rank=rank)
    scene.findings[core.NAMED] = _time_until_named(
        scene, at, named, core.wrong_name(result, node, rank)
    )


async def kill_supervisor(scene: Scene) -> None:
    await _begin_run(scene)
    at = await scene.send("supervisor", "KILL")
    named = partial(core.names_lost_supervisor, node=scene.node)
    await _named_and_clean(scene, at, named, None)


async def stop_agent(scene: Scene) -> None:
    await _begin_run(scene)
    at = await scene.send("agent", "KILL")
    await _linked_again(scene, at)


async def drop_link(scene: Scene) -> None:
    await _begin_run(scene)
    at = scene.clock.monotonic()
    if not scene.tap.channels[scene.node].cut():
        scene.interrupt()
        await scene.over()
        raise NotPossible(f"{scene.node} is not reached over SSH")
    await _linked_again(scene, at)


async def _kill_apart(scene: Scene) -> tuple[Apart, float]:
    """A run whose coordinator was killed while its ranks ran, and when that was."""
    scene.create()
    apart = await start_apart(scene)
    try:
        await apart.running()
    finally:
        at = await apart.kill()
    return apart, at


async def kill_coordinator(scene: Scene) -> None:
    apart, at = await _kill_apart(scene)
    scene.begin(resume)
    await scene.until(scene.heard, FOLLOWED_S, "lines after the takeover")
    scene.findings[core.TAKEN_OVER] = DrillFinding(seconds=scene.clock.monotonic() - at)
    await scene.over()
    scene.findings[core.LOGS] = _unless_wrong(
        _started_again(apart.state, scene.state), scene.goes_on()
    )


async def cut_past_lease(scene: Scene) -> None:
    apart, at = await _kill_apart(scene)
    ended_at = await wait_for_end(scene.request, apart.state, scene.clock)
    asked = StopRequested(kind=StopKind.GRACEFUL, by="drill", at=scene.clock.wall())
    scene.begin(partial(resume, stop=asked))
    await scene.over()
    wrong = core.ended_by_lease(scene.state)
    scene.findings[core.ENDED] = DrillFinding(seconds=max(0.0, ended_at - at), wrong=wrong)


async def interrupt_run(scene: Scene) -> None:
    await _begin_run(scene)
    at = scene.interrupt()
    await scene.over()
    scene.findings[core.STOPPED] = core.time_until(scene.moments, at, core.verified_clean)


PROCEDURES: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "kill-rank": kill_rank,
    "freeze-rank": freeze_rank,
    "kill-supervisor": kill_supervisor,
    "stop-agent": stop_agent,
    "drop-link": drop_link,
    "kill-coordinator": kill_coordinator,
    "lease": cut_past_lease,
    "interrupt": interrupt_run,
}


async def _named_and_clean(
    scene: Scene, at: float, named: Callable[[RunState], bool], rank: int | None
) -> None:
    result: Result = await scene.over()
    wrong = core.wrong_name(result, scene.node, rank)
    scene.findings[core.NAMED] = _time_until_named(scene, at, named, wrong)
    scene.findings[core.CLEAN] = core.time_until(scene.moments, at, core.verified_clean)


def _time_until_named(
    scene: Scene, at: float, named: Callable[[RunState], bool], wrong: str
) -> DrillFinding:
    found = core.time_until(scene.moments, at, named)
    return _unless_wrong(wrong, found)


def _unless_wrong(wrong: str, found: DrillFinding) -> DrillFinding:
    return DrillFinding(seconds=found.seconds, wrong=wrong) if wrong else found


def _started_again(before: RunState, now: RunState) -> str:
    """What speaks against it that the ranks are the very processes that they were."""
    changed = [n for n, node in before.nodes.items() if node.ranks != now.nodes[n].ranks]
    return f"ranks were started again: {', '.join(changed)}" if changed else ""


async def _linked_again(scene: Scene, at: float) -> None:
    await scene.over()
    opened = [when for when in scene.tap.opened[scene.node] if when > at]
    never = DrillFinding(wrong="it did not come back")
    scene.findings[core.LINKED] = DrillFinding(seconds=opened[0] - at) if opened else never
    scene.findings[core.LOGS] = scene.goes_on()
