"""A coordinator in a process of its own, which a drill can kill.

``python -m orchestrator.engine.drills.killable HOME RUN`` coordinates a run whose folder exists.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import orchestrator
from orchestrator.adapters.catalog.bundled import bundled_kit
from orchestrator.adapters.store.claim import claimed
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.sync.code_snapshot import take_snapshot, workload_parts
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.drill_promises import ranks_run
from orchestrator.core.run.state import RunState
from orchestrator.engine.drills.stage import (
    RANKS_S,
    RANKS_WRITE,
    STEADY_LINES,
    Scene,
    within_seconds,
)
from orchestrator.engine.oneshot.cleanup import read_request
from orchestrator.engine.run import execute
from orchestrator.engine.support.context import RunContext
from orchestrator.engine.support.replay import replay_journal

POLL_S = 0.1
LAST_WORDS_BYTES = 500


class Apart:
    """The process. ``state`` is what it had written down when it was last looked at."""

    def __init__(self, scene: Scene, process: asyncio.subprocess.Process) -> None:
        self.state: RunState
        self._scene = scene
        self._process = process

    async def running(self) -> None:
        """Until every rank writes line after line, and they come here. Raises ``RunFailed``."""
        async with within_seconds(RANKS_S, RANKS_WRITE):
            while not self._all_write():
                if self._process.returncode is not None:
                    raise _coordinator_gone(self._scene.folder)
                await asyncio.sleep(POLL_S)

    def _all_write(self) -> bool:
        folder = self._scene.folder
        self.state = replay_journal(folder, self._scene.request).state
        if self.state.plan is None or not ranks_run(self.state):
            return False
        shares = self.state.plan.nodes
        logs = (
            folder.log(share.name, f"rank-{rank}.out") for share in shares for rank in share.ranks
        )
        return all(p.exists() and p.read_bytes().count(b"\n") >= STEADY_LINES for p in logs)

    async def kill(self) -> float:
        """SIGKILL; the time just before."""
        at = self._scene.clock.monotonic()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        return at


async def start_apart(scene: Scene) -> Apart:
    """Coordinate the scene's run, whose folder exists, elsewhere. Whoever calls kills it."""
    with scene.folder.coordinator_log.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", __name__, str(scene.setting.layout.home), scene.request.run_id),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a terminal's Ctrl-C is for the drill
            env=_own_environment(),
        )
    return Apart(scene, process)


def _own_environment() -> dict[str, str]:
    """Ours, in which this very package is found."""
    home = str(Path(orchestrator.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _coordinator_gone(folder: RunFolder) -> RunFailed:
    words = folder.coordinator_log.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace")
    last = words.strip().rpartition("\n")[2]
    return RunFailed(f"its coordinator ended by itself: {last}", id="OR-DRILL-005")


def main(home: str, run: str) -> None:
    """Coordinate to the verdict, unseen."""
    layout = Layout(Path(home))
    folder = layout.run(run)
    request = read_request(folder)
    parts = workload_parts(Path(request.job.workload.folder), [bundled_kit()])
    snapshot = take_snapshot(parts, layout.snapshots)
    with claimed(folder, at=time.time()):
        context = RunContext(request=request, snapshot=snapshot, folder=folder, observers=[])
        result = asyncio.run(execute(context))
    if result.failure is not None:
        sys.stderr.write(f"{result.failure.cause}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
