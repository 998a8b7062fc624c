"""The engine: a thread that batches whatever is asked, step by step, and passes tokens on."""

from __future__ import annotations

import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import torch

from .decoder import cache_bytes_per_token
from .model import Model
from .options import EngineOptions
from .slots import Request, Sequence, Slots, rounded
from .steps import Flight, Steps

CLOSE_S = 30.0
MOST_CONTEXT = 4096  # unless another is asked for
MOST_SLOTS = 256
CPU_SLOTS = 16
CPU_CACHE_BYTES = 1 << 30
# Of the GPU's free memory after the weights: the rest is for activations and graphs.
CACHE_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Tokens that came for a request; ``finish`` is "" while it goes on, else why it ended.

    ``error`` is why there will be no more of them.
    """

    number: int
    tokens: tuple[int, ...]
    finish: str = ""
    error: str = ""


class BatchingEngine:
    """Continuous batching: a request joins when a slot is free and leaves when it is answered.

    ``on_updates`` is called in the engine's thread, once a step, with what came for all requests.
    """

    def __init__(
        self, model: Model, options: EngineOptions, on_updates: Callable[[list[Update]], None]
    ) -> None:
        self.context = min(options.context or MOST_CONTEXT, model.weights.shape.context)
        slots = options.slots or _fitting_slots(model, self.context)
        self._steps = Steps(
            model.weights, slots=slots, length=self.context, ends=model.ends, options=options
        )
        self._slots = Slots(slots)
        self._device = model.weights.device
        self._ends = frozenset(model.ends)
        self._budget = options.prefill_tokens
        self._on_updates = on_updates
        self._inbox: queue.SimpleQueue[list[Sequence] | int | None] = queue.SimpleQueue()
        self._known: dict[int, Sequence] = {}
        self._flights: deque[Flight] = deque()
        self._just_prefilled = False
        self.failure = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def slots(self) -> int:
        return self._steps.slots

    def start(self) -> None:
        """Record what can be recorded, then take requests."""
        self._steps.prepare()
        self._thread.start()

    def submit(self, number: int, request: Request) -> None:
        """Answer a request; ``number`` names it in updates. Raises :class:`TooLong`."""
        self.submit_all([(number, request)])

    def submit_all(self, requests: Items[tuple[int, Request]]) -> None:
        """Answer all of these, which the engine sees at once: its steps are then the same whenever
        they are asked of an idle engine. Raises :class:`TooLong`.
        """
        for _, request in requests:
            request.check_length(self.context)
        self._inbox.put([Sequence(request=request, number=number) for number, request in requests])

    def cancel(self, number: int) -> None:
        """Nobody waits for this request any more."""
        self._inbox.put(number)

    def close(self) -> None:
        """End the thread after the step under way."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # a thread begins with the first one
            while self._receive():
                self._turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, all who wait must hear of it
            traceback.print_exc()
            self.failure = f"{type(error).__name__}: {error}"
            lost = [Update(number=n, tokens=(), error=self.failure) for n in self._known]
            self._on_updates(lost)

    def _receive(self) -> bool:
        """Take what was asked, waiting only if there is nothing to do; whether to go on."""
        wait = self._slots.idle and not self._flights
        while True:
            try:
                item = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if item is None:
                return False
            if isinstance(item, list):
                for sequence in item:
                    self._known[sequence.number] = sequence
                    self._slots.add(sequence)
            elif item in self._known:
                self._slots.drop(self._known.pop(item))

    def _turn(self) -> None:
        """Launch one step if there is one, then pass on the tokens of the one before it."""
        launched = self._launch()
        if self._flights and (len(self._flights) > 1 or not launched):
            self._collect(self._flights.popleft())

    def _launch(self) -> bool:
        """Prompts first, but between two batches of them one token for those that run."""
        due = self._slots.due()
        if not (self._just_prefilled and due):
            admitted = self._slots.admit(self._budget)
            if admitted:
                self._just_prefilled = True
                self._flights.append(self._steps.prefill(admitted))
                return True
        self._just_prefilled = False
        if due:
            self._flights.append(self._steps.decode(due))
        return bool(due)

    def _collect(self, flight: Flight) -> None:
        updates, finished = [], []
        for sequence, token in zip(flight.rows, flight.wait(), strict=True):
            if sequence is not None and sequence.take(token, self._ends):
                update = Update(number=sequence.number, tokens=(token,), finish=sequence.finish)
                updates.append(update)
                if sequence.finish:
                    finished.append(sequence)
                    del self._known[sequence.number]
        self._slots.release(finished)
        if updates:
            self._on_updates(updates)


def _fitting_slots(model: Model, context: int) -> int:
    """Slots of this context that memory holds, at least 1."""
    weights = model.weights
    each = rounded(context) * cache_bytes_per_token(weights.shape, weights.dtype)
    if weights.device.type != "cuda":
        return max(1, min(CPU_SLOTS, CPU_CACHE_BYTES // each))
    free, _ = torch.cuda.mem_get_info(weights.device)
    return max(1, min(MOST_SLOTS, int(free * CACHE_SHARE) // each))
