"""A collective over some nodes of the plan, tried for real; nothing of it is left afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from orchestrator.core.fabric.collective_result import RankTrial
from orchestrator.core.fabric.probe_world import probe_environment, probe_processes
from orchestrator.core.model.plan import Plan
from orchestrator.engine.node.trial_node import TrialNode
from orchestrator.parsing.replies.trial_records import rank_trial

# Stages have their own deadlines; this is for what cannot even keep those.
TRIAL_S = 100.0
# Once one node's ranks failed, the others may still say what they saw.
LAST_WORDS_S = 3.0
# A request to end may overtake the one to begin: it is repeated. Containers take their time.
END_TRIES = 10
END_S = 2.0


async def try_collective(
    name: str,
    hands: Mapping[str, TrialNode],
    plan: Plan,
    names: Sequence[str],
    address: str,
) -> list[RankTrial]:
    """What the ranks on ``names`` told, who met at ``address`` of the first of them.

    Ends all of it also when it is cancelled. Raises as links do.
    """
    head = hands[names[0]]
    port = await head.listen()
    await head.release(port)
    wanted = probe_processes(name, plan, names, address, port)

    async def one(node: str) -> list[RankTrial]:
        ends = await hands[node].run_trial(
            name, wanted[node], probe_environment(plan.node(node)), TRIAL_S
        )
        ranks = {end.label: end for end in ends}
        return [
            rank_trial(node, int(process.label.rpartition("-")[2]), ranks[process.label])
            for process in wanted[node]
            if process.label in ranks
        ]

    tasks = {node: asyncio.create_task(one(node)) for node in names}
    try:
        await _until_one_fails(list(tasks.values()))
    finally:
        await _end_tasks(name, hands, tasks)
    return [rank for task in tasks.values() for rank in task.result()]


async def _until_one_fails(tasks: Sequence[asyncio.Task[list[RankTrial]]]) -> None:
    """Wait for all, or until one node's part failed and the others had time to say why."""
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if not all(rank.ok for task in done for rank in task.result()):
            if pending:
                await asyncio.wait(pending, timeout=LAST_WORDS_S)
            return


async def _end_tasks(
    name: str, hands: Mapping[str, TrialNode], tasks: Mapping[str, asyncio.Task[list[RankTrial]]]
) -> None:
    """Let what still runs end, and wait until it has."""
    for _ in range(END_TRIES):
        left = {node: task for node, task in tasks.items() if not task.done()}
        if not left:
            break
        asked = (hands[node].end_trial(name) for node in left)
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.wait(left.values(), timeout=END_S)
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
