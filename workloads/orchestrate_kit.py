"""How a script reports metrics, progress, artifacts and checkpoints, and how it gets the samples of
work that can be divided.

Standard library, Python 3.8+. Under orchestrate each rank appends JSON lines to
``$ORCHESTRATE_REPORT_DIR/rank-<RANK>.jsonl``; anywhere else (plain ``torchrun``, plain ``python``)
the same calls print readable lines, and outputs go to ``./output`` and ``./checkpoints``. Only
finite numbers are accepted: a metric that is NaN is a failure of the measurement, and the script
should say so itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, Iterator, List, Optional, Set, Tuple, Union

    Number = Union[int, float]

MAX_LINE_BYTES = 64 * 1024
MAX_OUTPUT_BYTES = 1024 * 1024
MAX_NAME = 128
MAX_REASON = 500
MAX_WARNINGS = 100
# How often a worker that has nothing to do looks for more: soon at first, then at leisure.
MIN_POLL_S, MAX_POLL_S, POLL_GROWTH = 0.002, 0.05, 1.2
# A coordinator that is gone for this long will not return; the lease of a run is far shorter.
MAX_WAIT_S = 7 * 86400.0
# What the script was started with, before it can change it.
ARGUMENTS = tuple(sys.argv[1:])


def rank() -> int:
    """This process's global rank; 0 outside of a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many ranks there are; 1 outside of a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _number() -> int:
    """This rank's number in the run; `RANK` counts from 0 on nodes that are worlds of their own."""
    return rank() + int(os.environ.get("ORCHESTRATE_FIRST_RANK", "0"))


def output_dir() -> Path:
    """Where artifacts go; what is in it at the end is collected from every node."""
    return _directory("ORCHESTRATE_OUTPUT_DIR", "output")


def checkpoint_dir() -> Path:
    """Where checkpoints go; it survives from one attempt of a run to the next, on this node."""
    return _directory("ORCHESTRATE_CHECKPOINT_DIR", "checkpoints")


def metric(name: str, value: Number, unit: str = "", step: Optional[int] = None) -> None:
    """A measured figure. Without ``step`` it is final; with it, a point of a series.

    NaN and infinity are left out, with a warning: telemetry must not end a training. A final figure
    that is left out passes no gate. Raises ``ValueError`` for a bad name, or a step that is not a
    whole number.
    """
    if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
        raise ValueError("a step is a whole number, not %r" % (step,))
    number = _finite(_name(name), value)
    if number is not None:
        _write({"type": "metric", "name": name, "value": number, "unit": unit, "step": step})


def progress(done: Number, total: Number, unit: str = "step", **fields: Union[Number, str]) -> None:
    """How far this rank is; ``fields`` are shown beside it (loss, rate). What is not finite is left
    out, with a warning.
    """
    numbers = {k: v if isinstance(v, str) else _finite(k, v) for k, v in fields.items()}
    shown = {key: value for key, value in numbers.items() if value is not None}
    record = {"done": _finite("done", done), "total": _finite("total", total), "unit": unit}
    if None not in record.values():
        _write({"type": "progress", **record, "fields": shown})


def artifact(path: Union[str, Path], name: Optional[str] = None) -> None:
    """Announce a finished file below :func:`output_dir`. Raises ``ValueError``, ``OSError``."""
    root = output_dir().resolve()
    file = Path(path).resolve()
    try:
        relative = str(file.relative_to(root))
    except ValueError:
        raise ValueError("%s is not below %s" % (file, root)) from None
    digest, size = _digest(file)
    _write(
        {
            "type": "artifact",
            "name": _name(name or relative),
            "path": relative,
            "bytes": size,
            "sha256": digest,
        }
    )


def checkpoint(path: Union[str, Path], step: int) -> None:
    """Announce a complete checkpoint. Raises ``ValueError``."""
    _write({"type": "checkpoint", "path": str(path), "step": int(step)})


class Sample:
    """One piece of divisible work. ``data``: its line of the data set as JSON; None without one."""

    __slots__ = ("data", "index")

    def __init__(self, index: int, data: Any) -> None:
        self.index = index
        self.data = data


def groups(count: int, group: int, file: str = "", identity: str = "") -> Iterator[List[Sample]]:
    """The samples to work on, in groups of ``group`` that are the same whoever works on them.

    Under orchestrate they are leased by the coordinator until all are done. Anywhere else they are
    every ``WORLD_SIZE``-th group of ``count`` indices, or of the lines of ``file`` (at most
    ``count``, 0 = all), and outputs go to ``samples-<rank>.jsonl`` in :func:`output_dir`.
    ``identity`` names whatever else decides the outputs, like a digest of the model: workers whose
    identities differ do not work together. Raises ``ValueError`` for a line that is not JSON, and
    ``RuntimeError`` in a worker that is unlike the others.
    """
    if group < 1 or count < 0:
        raise ValueError("a group of %d, of %d samples" % (group, count))
    return _work(group, identity).groups(count, group, file)


def complete(sample: Sample, output: Dict[str, Any], seconds: float, **amounts: Number) -> None:
    """The result of one sample, and how long it took.

    ``output`` is compared, digested and merged: no times, no names of nodes, nothing that depends
    on who did it. ``amounts`` are what can be counted: ``generated_tokens=32``. Raises
    ``ValueError`` for a sample that is not open, and what is not plain JSON with finite numbers.
    """
    numbers = {_name(key): _amount(key, value) for key, value in amounts.items()}
    line = _sample_line(sample.index, output)
    _work().complete(sample.index, line, _amount("seconds", seconds), numbers)


def fail(sample: Sample, reason: str) -> None:
    """This sample cannot be done; the others go on. Raises ``ValueError`` if it is not open."""
    _work().fail(sample.index, str(reason)[:MAX_REASON])


def _directory(variable: str, fallback: str) -> Path:
    path = Path(os.environ.get(variable) or fallback)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError("not a name of at most %d printable characters: %r" % (MAX_NAME, name))
    return name


_warned: Set[str] = set()


def _finite(name: str, value: Number) -> Optional[float]:
    """The number, or None if it is none; warned of once for each name."""
    number = float(value)
    if math.isfinite(number):
        return number
    if name not in _warned and len(_warned) < MAX_WARNINGS:
        _warned.add(name)
        sys.stderr.write("orchestrate_kit: %s is %r: it is not reported\n" % (name, number))
    return None


def _digest(file: Path) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1024 * 1024), b""):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _write(record: dict[str, Any]) -> None:
    """One line by one write, so that lines of several threads or processes never mix."""
    folder = os.environ.get("ORCHESTRATE_REPORT_DIR")
    if not folder:
        _print(record)
        return
    line = json.dumps({**record, "t": time.time()}, allow_nan=False).encode()
    if len(line) >= MAX_LINE_BYTES:
        raise ValueError("a record of %d bytes; at most %d" % (len(line), MAX_LINE_BYTES))
    _append(os.path.join(folder, "rank-%d.jsonl" % _number()), line)


def _append(path: str, line: bytes, fresh: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(path, flags | os.O_TRUNC if fresh else flags, 0o600)
    try:
        os.write(fd, line + b"\n" if line else line)
    finally:
        os.close(fd)


def _print(record: dict[str, Any]) -> None:
    if rank():
        return
    kind = record["type"]
    if kind == "metric":
        step = "" if record["step"] is None else " at step %d" % record["step"]
        text = "%s = %g %s%s" % (record["name"], record["value"], record["unit"], step)
    elif kind == "progress":
        shown = " ".join("%s=%s" % item for item in record["fields"].items())
        text = "%s %g/%g %s" % (record["unit"], record["done"], record["total"], shown)
    else:
        text = "%s %s" % (kind, record["path"])
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()


# ---- divisible work --------------------------------------------------------------------------


def _amount(name: str, value: object) -> Number:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError("%s is %r, not a finite number from 0 on" % (name, value))
    return value


def _sample_line(index: int, output: object) -> bytes:
    """The sample's line in the merged outputs: what digests are made of."""
    if not isinstance(output, dict) or "index" in output:
        raise ValueError("an output is a dictionary without the key 'index'")
    # To JSON and back, so that keys sort as the texts that they become.
    plain = json.loads(json.dumps(output, allow_nan=False))
    line = json.dumps({"index": index, **plain}, allow_nan=False, sort_keys=True).encode()
    if len(line) > MAX_OUTPUT_BYTES:
        raise ValueError("an output of %d bytes; at most %d" % (len(line), MAX_OUTPUT_BYTES))
    return line


class _Open:
    """The samples that the script was given and has not answered."""

    def __init__(self) -> None:
        self._groups: Dict[int, int] = {}
        self._left: Dict[int, int] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, number: int, samples: List[Sample]) -> None:
        with self._lock:
            self._left[number] = len(samples)
            self._groups.update((sample.index, number) for sample in samples)

    def close(self, index: int) -> None:
        """Raises ``ValueError`` for a sample that is not open."""
        with self._lock:
            number = self._groups.pop(index, None)
            if number is None:
                raise ValueError("sample %d was not handed out here, or is answered" % index)
            self._left[number] -= 1

    def settled(self) -> List[int]:
        """The groups of which every sample was answered; each is returned once."""
        with self._lock:
            done = [number for number, left in self._left.items() if not left]
            for number in done:
                del self._left[number]
        return done


class _Alone:
    """All samples, or every so many-th group of them; outputs go to a file of this rank."""

    def __init__(self) -> None:
        self._open = _Open()
        self._path = str(output_dir() / ("samples-%d.jsonl" % rank()))
        _append(self._path, b"", fresh=True)

    def groups(self, count: int, group: int, file: str) -> Iterator[List[Sample]]:
        samples: List[Sample] = []
        number = 0
        for sample in _samples(count, file):
            samples.append(sample)
            if len(samples) == group:
                yield from self._mine(number, samples)
                number, samples = number + 1, []
        if samples:
            yield from self._mine(number, samples)

    def _mine(self, number: int, samples: List[Sample]) -> Iterator[List[Sample]]:
        if number % world_size() == rank():
            self._open.add(number, samples)
            yield samples

    def complete(
        self, index: int, line: bytes, seconds: Number, amounts: Dict[str, Number]
    ) -> None:
        del seconds, amounts
        self._open.close(index)
        _append(self._path, line)

    def fail(self, index: int, reason: str) -> None:
        self._open.close(index)
        sys.stderr.write("orchestrate_kit: sample %d failed: %s\n" % (index, reason))


def _samples(count: int, file: str) -> Iterator[Sample]:
    if not file:
        yield from (Sample(index, None) for index in range(count))
        return
    with open(file, "rb") as lines:
        for index, line in enumerate(lines):
            if count and index >= count:
                return
            try:
                yield Sample(index, json.loads(line))
            except ValueError as error:
                raise ValueError("%s:%d: not JSON: %s" % (file, index + 1, error)) from None


class _Leased:
    """A worker of a coordinator: numbered feeds come in, lines go out."""

    def __init__(self, group: int, identity: str) -> None:
        folder = os.environ["ORCHESTRATE_EXCHANGE_DIR"]
        self._path = os.path.join(folder, "exchange-%d.jsonl" % _number())
        self._inbox = os.path.join(folder, "in", "rank-%d" % _number())
        self._open = _Open()
        self._waiting: Deque[Tuple[int, List[Sample]]] = deque()
        self._taken = 0
        self._busy_s = 0.0
        self._ended = False
        begun = [os.environ.get("ORCHESTRATE_CONFIGURATION", ""), ARGUMENTS, group]
        digest = hashlib.sha256(json.dumps(begun).encode()).hexdigest()
        self._tell({"type": "worker", "configuration": digest, "identity": identity})

    def groups(self, count: int, group: int, file: str) -> Iterator[List[Sample]]:
        del count, group, file  # the coordinator has read them, too
        while self._more():
            number, samples = self._waiting.popleft()
            self._open.add(number, samples)
            began = time.monotonic()
            yield samples
            self._busy_s += time.monotonic() - began
            self._tell_settled()

    def complete(
        self, index: int, line: bytes, seconds: Number, amounts: Dict[str, Number]
    ) -> None:
        self._open.close(index)
        output = json.loads(line)
        del output["index"]
        record = {"type": "output", "sample": index, "sha256": hashlib.sha256(line).hexdigest()}
        self._tell({**record, "seconds": seconds, "amounts": amounts, "output": output})

    def fail(self, index: int, reason: str) -> None:
        self._open.close(index)
        self._tell({"type": "failed", "sample": index, "reason": reason})

    def _more(self) -> bool:
        """Wait until there is something to do; False at the end."""
        pause_s = MIN_POLL_S
        began = time.monotonic()
        self._take_all()
        while not self._waiting and not self._ended:
            before = time.monotonic()
            if before - began > MAX_WAIT_S:
                raise TimeoutError("no message from the coordinator for %g s" % MAX_WAIT_S)
            time.sleep(pause_s)
            pause_s = min(MAX_POLL_S, pause_s * POLL_GROWTH)
            self._take_all()
            if self._open:  # of work that goes on beside this thread
                self._busy_s += time.monotonic() - before
                self._tell_settled()
        return bool(self._waiting)

    def _take_all(self) -> None:
        while not self._ended:
            path = os.path.join(self._inbox, "%08d.json" % (self._taken + 1))
            try:
                with open(path, "rb") as file:
                    fed = json.loads(file.read())
            except FileNotFoundError:
                return
            os.unlink(path)
            self._taken += 1
            self._take(fed)

    def _take(self, fed: Dict[str, Any]) -> None:
        """``lease``: more to do. ``recall``: what others have done. ``end``: nothing is left.
        ``refused``: what this worker does would not be taken.
        """
        took = {"type": "took", "feed": self._taken, "lease": fed.get("lease", "")}
        leased = fed.get("groups", []) if fed["type"] == "lease" else []
        self._tell({**took, "groups": [entry["group"] for entry in leased]})
        if fed["type"] == "refused":
            raise RuntimeError("this worker takes no part: %s" % fed.get("reason"))
        for entry in leased:
            first = entry["first"]
            data = entry.get("data") or [None] * entry["count"]
            samples = [Sample(first + offset, each) for offset, each in enumerate(data)]
            self._waiting.append((entry["group"], samples))
        if fed["type"] == "recall":
            gone = set(fed["groups"])
            self._waiting = deque(entry for entry in self._waiting if entry[0] not in gone)
        self._ended = fed["type"] == "end"
        if self._ended:
            self._waiting.clear()

    def _tell_settled(self) -> None:
        done = self._open.settled()
        if done:
            self._tell({"type": "worked", "groups": done, "busy": self._busy_s})

    def _tell(self, record: Dict[str, Any]) -> None:
        _append(self._path, json.dumps({**record, "t": time.time()}, allow_nan=False).encode())


_at_work: List[Union[_Alone, _Leased]] = []


def _work(group: int = 0, identity: str = "") -> Union[_Alone, _Leased]:
    """This process's share; it begins with the first call of :func:`groups`."""
    if not _at_work:
        if not group:
            raise ValueError("no samples were asked for: groups() comes first")
        leased = os.environ.get("ORCHESTRATE_SAMPLES") == "leased"
        _at_work.append(_Leased(group, identity) if leased else _Alone())
    return _at_work[0]
