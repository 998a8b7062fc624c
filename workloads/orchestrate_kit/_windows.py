"""The measured part of a job: the energy of the node's GPUs in it, and the work that was done.

One rank of each node asks for all GPUs of the job on that node, from a thread of its own, so that a
driver that does not answer holds up nothing. What was measured so far is reported now and then, and
at the end: a job that is killed leaves it behind.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
import weakref
from contextlib import contextmanager
from functools import partial

from ._energy import GpuMeter
from ._nvml import Nvml, NvmlError, find_gpus, shown_names
from ._reports import plain_scalar, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

    from ._energy import GpuEnergy, Reading

    Number = Union[int, float]

INTERVAL_S = 0.1
PATIENCE_S = 10.0  # for a driver that answers late
FIRST_REPORT_S = 5.0
MAX_REPORT_S = 60.0  # between two reports
MAX_PROBLEMS = 16
WORK = ("requests", "tokens", "input_tokens", "output_tokens")
VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = "no GPU is visible to the job"
_numbers = itertools.count()
_windows: weakref.WeakSet[MeasuredWindow] = weakref.WeakSet()
_on_hold = threading.Event()  # while a profile is taken


class NodeEnergy:
    """What all GPUs of the job on this node used. ``joules`` None: not known of each of them.

    ``peak_watts``: the most that all of them drew at one moment. No ``problems``: it is valid.
    """

    def __init__(
        self,
        gpus: List[GpuEnergy],
        seconds: float,
        peak_watts: Optional[float],
        problems: List[str],
    ) -> None:
        self.gpus = gpus
        self.seconds = seconds
        self.peak_watts = peak_watts
        of_gpus = ["%s: %s" % (gpu.gpu, problem) for gpu in gpus for problem in gpu.problems]
        self.problems = [*problems, *of_gpus][:MAX_PROBLEMS]
        counted = [gpu.joules for gpu in gpus if gpu.joules is not None]
        complete = bool(gpus) and len(counted) == len(gpus)
        self.joules: Optional[float] = sum(counted) if complete else None

    @property
    def valid(self) -> bool:
        return self.joules is not None and not self.problems

    @property
    def watts(self) -> Optional[float]:
        """The mean of all GPUs together."""
        return self.joules / self.seconds if self.joules and self.seconds > 0 else None


class Sampler:
    """Reads the GPUs of ``find`` in a thread of its own, ten times a second while that is asked."""

    def __init__(
        self,
        find: Callable[[], List[Tuple[str, Callable[[], Reading]]]],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._find = find
        self._patience_s = patience_s
        self._is_stuck = False
        self._orders: queue.Queue[Tuple[str, threading.Event]] = queue.Queue()
        self._lock = threading.Lock()
        self._meters: List[GpuMeter] = []
        self._asks: List[Callable[[], Reading]] = []
        self._peak: Optional[float] = None
        self._problems: Dict[str, None] = {}
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    def order(self, what: str) -> None:
        """``open``, ``close`` or ``end``; returns once done. A driver that does not answer is
        waited for once, and nothing is known from then on.
        """
        if self._is_stuck:
            return
        done = threading.Event()
        self._orders.put((what, done))
        if not done.wait(self._patience_s):
            self._is_stuck = True
            self._problems.setdefault("NVML did not answer for %g s" % self._patience_s)

    def energy(self, seconds: float) -> NodeEnergy:
        """Up to the newest reading."""
        with self._lock:
            gpus = [meter.energy() for meter in self._meters]
            return NodeEnergy(gpus, seconds, self._peak, list(self._problems))

    def _run(self) -> None:
        try:
            found = self._find()
        except NvmlError as error:
            found = []
            self._problems.setdefault(str(error))
        with self._lock:
            self._meters = [GpuMeter(uuid) for uuid, _ in found]
            self._asks = [ask for _, ask in found]
        is_open = False
        what = ""
        while what != "end":
            what, done = self._next_order(is_open)
            if is_open or what == "open":
                self._read()
            is_open = what in ("open", "go on")
            if not is_open:
                self._cut()
            done.set()

    def _next_order(self, is_open: bool) -> Tuple[str, threading.Event]:
        """While the window is open, the next reading is due after an interval without one."""
        try:
            return self._orders.get(timeout=INTERVAL_S if is_open else None)
        except queue.Empty:
            return "go on", threading.Event()

    def _read(self) -> None:
        readings = [ask() for ask in self._asks]
        drawn = [reading.watts for reading in readings if reading.watts is not None]
        with self._lock:
            for meter, reading in zip(self._meters, readings):
                meter.add(reading)
            if drawn and len(drawn) == len(readings):
                self._peak = max(self._peak or 0.0, sum(drawn))

    def _cut(self) -> None:
        with self._lock:
            for meter in self._meters:
                meter.cut()


class MeasuredWindow:
    """Open from :meth:`begin` to :meth:`pause`, as often as need be, until :meth:`end`.

    The device must be done with its work at both ends: `torch.cuda.synchronize()`, or a value that
    was read. ``device`` as torch names it; of a job that computes on a CPU no GPU is read.
    ``alone``: each rank asks for its own GPU, which is for ranks that measure by themselves;
    otherwise the first rank of each node asks for all GPUs of the job there.
    """

    def __init__(self, device: str = "auto", alone: bool = False) -> None:
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        asks = alone or local_rank == 0
        self._why_not = no_gpu_reason(device, os.environ) if asks else ""
        only = local_rank if alone else None
        found = partial(gpus_of_job, only)
        self._sampler = Sampler(found) if asks and not self._why_not else None
        self._work: Dict[str, float] = {}
        self._seconds = 0.0
        self._opened: Optional[float] = None
        self._report_at_s = FIRST_REPORT_S
        self._number = next(_numbers)
        self._counting = threading.Lock()
        self._suspended = False
        _windows.add(self)

    def begin(self) -> None:
        """Open the window; an open one stays so. While a profile is taken it waits for its end."""
        self._suspended = _on_hold.is_set()
        if self._opened is None and not self._suspended:
            self._order("open")
            self._opened = time.monotonic()

    def end(self) -> None:
        """Close it for good, and report."""
        self.pause()
        self._order("end")
        self._report(final=True)

    def pause(self) -> None:
        """What is done until the next :meth:`begin` does not count."""
        self._suspended = False
        if self._opened is not None:
            self._seconds, self._opened = self.seconds, None
            self._order("close")

    def count(self, **work: Number) -> None:
        """Work that was done in the window since the last call: ``requests``, ``tokens``,
        ``input_tokens``, ``output_tokens``. Of all ranks together each is counted by one; what is
        counted while the window is not open is not in it. Raises ``ValueError`` for another name.
        """
        for name, amount in work.items():
            if name not in WORK:
                raise ValueError("work is counted in %s, not %r" % (", ".join(WORK), name))
            number = float(plain_scalar(name, amount))
            with self._counting:
                if self._opened is not None:
                    self._work[name] = self._work.get(name, 0.0) + number
        if self.seconds >= self._report_at_s:
            self._report_at_s = self.seconds + min(self.seconds, MAX_REPORT_S)
            self._report(final=False)

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        ongoing = 0.0 if self._opened is None else time.monotonic() - self._opened
        return self._seconds + ongoing

    @property
    def energy(self) -> Optional[NodeEnergy]:
        """Up to now, on the rank of each node that asks; None on all others."""
        if self._why_not:
            return NodeEnergy([], self.seconds, None, [self._why_not])
        return None if self._sampler is None else self._sampler.energy(self.seconds)

    def _order(self, what: str) -> None:
        if self._sampler is not None:
            self._sampler.order(what)

    def _report(self, final: bool) -> None:
        energy = self.energy
        if energy is None and not self._work:
            return
        record: Dict[str, Any] = {"type": "energy", "window": self._number, "final": final}
        record.update(seconds=self.seconds, work=self._work)
        if energy is not None:
            gpus = [
                {"gpu": g.gpu, "joules": g.joules, "integrated": g.integrated} for g in energy.gpus
            ]
            record.update(gpus=gpus, peak_watts=energy.peak_watts, problems=energy.problems)
        write_record(record)

    def suspend(self) -> None:
        """Close it until :func:`resume_windows`, if it is open."""
        is_open = self._opened is not None
        self.pause()
        self._suspended = is_open

    @property
    def is_open(self) -> bool:
        """Whether what is done now counts."""
        return self._opened is not None

    @property
    def is_suspended(self) -> bool:
        """Whether it is to be open, and a profile keeps it closed."""
        return self._suspended


def window_is_open() -> bool:
    """Whether any measured window of this process is."""
    return any(window.is_open for window in _windows)


def suspend_windows() -> None:
    """Nothing is measured until :func:`resume_windows`."""
    _on_hold.set()
    for window in list(_windows):
        window.suspend()


def resume_windows() -> None:
    """Those go on that were open, or were opened meanwhile."""
    _on_hold.clear()
    for window in list(_windows):
        if window.is_suspended:
            window.begin()


@contextmanager
def measured_window(device: str = "auto", alone: bool = False) -> Iterator[MeasuredWindow]:
    """The measured part of a job, once warm: what its GPUs use in it becomes the run's energy; of
    several windows their sum.

    All ranks open one. See :class:`MeasuredWindow`.
    """
    window = MeasuredWindow(device, alone)
    window.begin()
    try:
        yield window
    finally:
        window.end()


def no_gpu_reason(device: str, environment: Mapping[str, str]) -> str:
    """Why no GPU is asked for its energy; empty where some are."""
    if device.startswith("cpu"):
        return "the job computes on a CPU"
    visible = environment.get(VISIBLE)
    return NO_GPU if visible is not None and not shown_names(visible) else ""


def gpus_of_job(only: Optional[int] = None) -> List[Tuple[str, Callable[[], Reading]]]:
    """Each GPU's UUID, and what reads it; or of the local rank ``only``. Under orchestrate the job
    has all that its ranks see, else each rank is taken to have one. Raises :class:`NvmlError`.
    """
    nvml = Nvml()
    gpus = find_gpus(nvml, os.environ.get(VISIBLE))
    if only is not None:
        gpus = gpus[only : only + 1]
    elif "ORCHESTRATE_REPORT_DIR" not in os.environ:
        gpus = gpus[: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))]
    if not gpus:
        raise NvmlError(NO_GPU)
    return [(uuid, partial(nvml.read, device)) for uuid, device in gpus]
