"""The nodes' parts in a round: fetched as they are announced, checked, not waited for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from orchestrator.adapters.rounds.outer_optimizer import Kept, OuterState
from orchestrator.adapters.rounds.parameter_files import size_of
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.sharing.rounds import Part, Terms, patience_s
from orchestrator.engine.sharing.rank_exchange import Exchange
from orchestrator.engine.sharing.round_inbox import RoundInbox
from orchestrator.engine.support.context import RunContext

LOOK_EVERY_S = 1.0


class RoundParts:
    """Of one attempt; ``index`` numbers its nodes."""

    def __init__(
        self,
        exchange: Exchange,
        hearing: RoundInbox,
        outer: OuterState,
        index: Mapping[str, int],
        context: RunContext,
    ) -> None:
        self._exchange = exchange
        self._hearing = hearing
        self._outer = outer
        self._index = index
        self._note = context.note
        self._clock = context.clock

    async def gather(
        self, number: int, kept: Kept, terms: Terms, alive: Callable[[], Iterable[str]]
    ) -> tuple[float, dict[str, Part]]:
        """When the first part of a round came, and all that came in time, in the participants'
        order. Who is not ``alive`` any more is not waited for.
        """
        bringing: dict[str, asyncio.Task[bool]] = {}
        began: float | None = None
        try:
            while True:
                told = await asyncio.to_thread(self._hearing.listen)
                announced = told.parts.get(number, {})
                for node in set(announced) & set(kept.participants) - set(bringing):
                    began = began or self._clock.monotonic()
                    bringing[node] = asyncio.create_task(
                        self._bring(number, node, announced[node], terms)
                    )
                here = {n: announced[n] for n, task in bringing.items() if _went_well(task)}
                awaited = [node for node in alive() if not _is_over(bringing.get(node))]
                if not awaited or (began is not None and here and self._is_late(began, here)):
                    order = [node for node in kept.participants if node in here]
                    return began or self._clock.monotonic(), {node: here[node] for node in order}
                await self._exchange.wait(LOOK_EVERY_S)
        finally:
            for task in bringing.values():
                task.cancel()

    def _is_late(self, began: float, here: Mapping[str, Part]) -> bool:
        waited_s = self._clock.monotonic() - began
        return waited_s > patience_s(part.pace for part in here.values())

    async def _bring(self, number: int, node: str, part: Part, terms: Terms) -> bool:
        """Fetch a part and check it; whether it counts."""
        target = self._outer.part(number, self._index[node])
        try:
            if part.file.bytes != size_of(terms.compression, terms.values):
                raise ValueError(f"it has {part.file.bytes} bytes")
            file = part.file
            await self._exchange.fetch(node, file.name, file.bytes, file.sha256, target)
            await asyncio.to_thread(self._outer.check, target, terms.compression, terms.values)
            return True
        except (OrchestrateError, ValueError) as error:
            self._note(f"{node}: its part in round {number} does not count: {error}")
            return False
        finally:
            self._exchange.changed.set()


def _is_over(task: asyncio.Task[bool] | None) -> bool:
    return task is not None and task.done()


def _went_well(task: asyncio.Task[bool]) -> bool:
    """Raises what the task raised: a full disk here is no fault of the node."""
    return task.done() and task.result()
