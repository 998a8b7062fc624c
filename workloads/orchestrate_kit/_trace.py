"""What ran when, from a trace in Chrome's format as torch's profiler exports it. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping

MAX_EVENTS = 300_000
MAX_NAMES = 20_000
MAX_NAME = 400
ON_GPU = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "copy"}
ON_CPU = {"cpu_op": "operator"}


def kernels_of(trace: Mapping[str, Any]) -> Dict[str, Any]:
    """``{"device": "gpu" or "cpu", "names", "kinds", "lanes", "events", "dropped"}``: an event is
    ``[start, duration, lane, name]``, the times in microseconds since the first one, ``lane`` and
    ``name`` places in those lists; ``kinds`` belong to ``names``.

    Of a GPU kernels and copies by stream; where there is none of them, operators by thread.
    """
    events = [e for e in trace.get("traceEvents", ()) if e.get("ph") == "X"]
    on_gpu = [e for e in events if e.get("cat") in ON_GPU]
    kinds = ON_GPU if on_gpu else ON_CPU
    chosen = on_gpu or [e for e in events if e.get("cat") in ON_CPU]
    table = _Table(kinds)
    for event in sorted(chosen, key=lambda event: event["ts"])[:MAX_EVENTS]:
        table.add(event)
    return {"device": "gpu" if on_gpu else "cpu", **table.columns(),
            "dropped": len(chosen) - len(table.events)}  # fmt: skip


class _Table:
    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.events: List[List[float]] = []
        self._kinds = kinds
        self._names: Dict[str, int] = {}
        self._kinds_of_names: List[str] = []
        self._lanes: Dict[str, int] = {}
        self._zero: float = 0.0

    def add(self, event: Mapping[str, Any]) -> None:
        if not self.events:
            self._zero = event["ts"]
        lane = "%s/%s" % (event.get("pid", ""), event.get("tid", ""))
        name = str(event.get("name", ""))[:MAX_NAME]
        if name not in self._names:
            if len(self._names) >= MAX_NAMES:
                return
            self._kinds_of_names.append(self._kinds[event["cat"]])
        start, took = event["ts"] - self._zero, event.get("dur", 0)
        place = self._lanes.setdefault(lane, len(self._lanes))
        number = self._names.setdefault(name, len(self._names))
        self.events.append([round(start, 3), round(took, 3), place, number])

    def columns(self) -> Dict[str, Any]:
        return {
            "names": list(self._names),
            "kinds": self._kinds_of_names,
            "lanes": list(self._lanes),
            "events": self.events,
        }
