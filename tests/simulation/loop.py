"""An event loop whose time is simulated: when nothing is ready it jumps to the next timer.

One thread, no selector, no real waiting: the same callbacks in the same order give the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Stalled(BaseException):
    """Nothing is ready and nothing is scheduled: somebody waits for what will never come."""


class TooLong(BaseException):
    """The simulation takes more steps, or more simulated time, than any sound run needs."""


class Killed(BaseException):
    """The simulated process that this code runs in was killed at this point."""


class Process:
    """A simulated operating-system process: the tasks that its first task led to.

    ``frozen``: none of its callbacks run until it is thawed, as under SIGSTOP.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.at_death: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def adopt(self, task: asyncio.Task[Any]) -> None:
        if len(self._tasks) > 256:
            self._tasks = self.living()
        self._tasks.append(task)

    def living(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if not task.done()]

    def die(self) -> None:
        """From now on nothing that it does reaches the world; its tasks unwind."""
        if self.alive:
            self.alive = False
            self.frozen = False
            for notify in self.at_death:
                notify()


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def check_alive() -> None:
    """Raises :class:`Killed` where the running code belongs to a process that was killed."""
    process = PROCESS.get()
    if process is not None and not process.alive:
        raise Killed


class _Task(asyncio.Task[T]):
    """Hashed by its number, so that the order of a set of tasks does not depend on addresses."""

    _numbers = itertools.count()

    def __init__(self, coro: Coroutine[Any, Any, T], **options: Any) -> None:
        self._number = next(_Task._numbers)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    context = options.get("context")
    process = context.get(PROCESS) if context is not None else PROCESS.get()
    task = _Task(coro, loop=loop, **options)
    if process is not None:
        process.adopt(task)
    return task


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """Use :meth:`run`. ``steps`` counts callbacks."""

    def __init__(self, *, max_steps: int = 400_000, max_time_s: float = 100_000.0) -> None:
        super().__init__()
        self.steps = 0
        self._now = 0.0
        self._limits = (max_steps, max_time_s)
        self._frozen: list[Process] = []
        self._parked: list[asyncio.Handle] = []
        _Task._numbers = itertools.count()
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        return self._now

    def freeze(self, process: Process) -> None:
        process.frozen = True
        self._frozen.append(process)

    def thaw(self, process: Process) -> None:
        process.frozen = False
        self._frozen = [p for p in self._frozen if p.frozen]
        parked, self._parked = self._parked, []
        for handle in parked:
            self._ready.append(handle)  # type: ignore[attr-defined]

    # ---- what BaseEventLoop asks of its children ------------------------------------------------

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise Stalled(f"nothing is ready at {self._now:.3f} s")
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._frozen and self._is_frozen(handle):
                self._parked.append(handle)
                continue
            self.execute(handle)
            self.steps += 1
        if self.steps > self._limits[0] or self._now > self._limits[1]:
            raise TooLong(f"{self.steps} steps, {self._now:.0f} s")

    def execute(self, handle: asyncio.Handle) -> None:
        """One callback."""
        handle._run()

    @staticmethod
    def process_of(handle: asyncio.Handle) -> Process | None:
        """Whose callback it is; None = the world's."""
        context: contextvars.Context = handle._context  # type: ignore[attr-defined]
        return context.get(PROCESS)

    def _is_frozen(self, handle: asyncio.Handle) -> bool:
        process = self.process_of(handle)
        return process is not None and process.frozen

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _process_events(self, event_list: object) -> None:
        """There is no selector."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """At once and in line: there is one thread."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the future
            done.set_exception(error)
        return done


@contextlib.contextmanager
def virtual_loop(**limits: Any) -> Iterator[VirtualLoop]:
    """A loop that is closed afterwards; what is still pending is cancelled and unwound."""
    loop = VirtualLoop(**limits)
    try:
        yield loop
    finally:
        loop.set_exception_handler(lambda *_: None)
        for _ in range(100):
            pending = asyncio.all_tasks(loop)
            if not pending:
                break
            for task in pending:
                task.cancel()
            with contextlib.suppress(BaseException):
                loop.run_until_complete(asyncio.wait(pending, timeout=1.0))
        loop.close()
