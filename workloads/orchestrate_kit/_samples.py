"""The samples of work that can be divided: leased by a coordinator, or every so many-th group."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import threading
import time
from codecs import BOM_UTF8
from collections import deque

from ._reports import (
    append_line,
    checked_name,
    output_dir,
    plain_scalar,
    rank,
    rank_in_run,
    world_size,
)
from ._windows import MeasuredWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple, Union

    from ._reports import Number

MAX_OUTPUT_BYTES = 1024 * 1024
MAX_REASON = 500
# How often a worker that has nothing to do looks for more: soon at first, then at leisure.
MIN_POLL_S, MAX_POLL_S, POLL_GROWTH = 0.002, 0.05, 1.2
# A coordinator that is gone for this long will not return; the lease of a run is far shorter.
MAX_WAIT_S = 7 * 86400.0
# Amounts of samples by the names that energy and cost know.
COUNTED_AS = {
    "prompt_tokens": "input_tokens",
    "input_tokens": "input_tokens",
    "generated_tokens": "output_tokens",
    "output_tokens": "output_tokens",
}
# What the script was started with, before it can change it.
ARGUMENTS = tuple(sys.argv[1:])


class Sample:
    """One piece of divisible work. ``data``: its line of the data set as JSON; None without one.

    ``of``: which sample of the data set it is. That is ``index``, unless a load generator asks for
    samples in its own order, and for some again.
    """

    __slots__ = ("data", "index", "of")

    def __init__(self, index: int, data: Any, of: Optional[int] = None) -> None:
        self.index = index
        self.data = data
        self.of = index if of is None else of


def groups(
    count: int, group: int, file: str = "", identity: str = "", per_s: float = 0.0
) -> Iterator[List[Sample]]:
    """The samples to work on, in groups of ``group`` that are the same whoever works on them.

    Under orchestrate they are leased by the coordinator until all are done. Anywhere else they are
    every ``WORLD_SIZE``-th group of ``count`` indices, or of the lines of ``file`` (at most
    ``count``, 0 = all), and outputs go to ``samples-<rank>.jsonl`` in :func:`output_dir`.
    ``identity`` names whatever else decides the outputs, like a digest of the model: workers whose
    identities differ do not work together. ``per_s``: samples per second that this worker reached
    while it warmed up, from which a load generator takes what it may ask for; 0 = not measured.
    Raises ``ValueError`` for a line that is not JSON, and ``RuntimeError`` in a worker that is
    unlike the others.
    """
    if group < 1 or count < 0:
        raise ValueError("a group of %d, of %d samples" % (group, count))
    return _measured(_work(group, identity, per_s).groups(count, group, file))


def _measured(shares: Iterator[List[Sample]]) -> Iterator[List[Sample]]:
    """From the first group on, the energy is that of the samples."""
    window = MeasuredWindow()
    _windows.append(window)
    try:
        for samples in shares:
            window.begin()
            yield samples
    finally:
        _windows.remove(window)
        window.end()


def complete(sample: Sample, output: Dict[str, Any], seconds: float, **amounts: Number) -> None:
    """The result of one sample, and how long it took.

    ``output`` is compared, digested and merged: no times, no names of nodes, nothing that depends
    on who did it. ``amounts`` are what can be counted: ``generated_tokens=32``. Those of
    ``COUNTED_AS`` are the tokens by which the run's energy is divided, too. Raises
    ``ValueError`` for a sample that is not open, and what is not plain JSON with finite numbers.
    """
    numbers = {checked_name(key): _amount(key, value) for key, value in amounts.items()}
    line = _sample_line(sample.index, output)
    _work().complete(sample.index, line, _amount("seconds", seconds), numbers)
    counted = {COUNTED_AS[name]: amount for name, amount in numbers.items() if name in COUNTED_AS}
    for window in _windows:
        window.count(requests=1, **counted)


def first_token(sample: Sample) -> None:
    """The first part of its output is there: a load generator measures the time to it. Any thread
    may say so. Raises ``ValueError`` if the sample is not open.
    """
    _work().begin(sample.index)


def fail(sample: Sample, reason: str) -> None:
    """This sample cannot be done; the others go on. Raises ``ValueError`` if it is not open."""
    _work().fail(sample.index, str(reason)[:MAX_REASON])


def _amount(name: str, value: object) -> Number:
    number = plain_scalar(name, value)
    if not isinstance(number, (int, float)) or not 0 <= number < math.inf:
        raise ValueError("%s is %r, not a finite number from 0 on" % (name, value))
    return number


def _plain(value: object) -> object:
    """What JSON takes in place of a scalar of NumPy or torch."""
    number = plain_scalar("an output", value)
    if number is value:
        raise ValueError("an output holds %.80r, which is not plain JSON" % (value,))
    return number


def _sample_line(index: int, output: object) -> bytes:
    """The sample's line in the merged outputs: what digests are made of."""
    if not isinstance(output, dict) or "index" in output:
        raise ValueError("an output is a dictionary without the key 'index'")
    # To JSON and back, so that keys sort as the texts that they become.
    plain = json.loads(json.dumps(output, allow_nan=False, default=_plain))
    line = json.dumps({"index": index, **plain}, allow_nan=False, sort_keys=True).encode()
    if len(line) > MAX_OUTPUT_BYTES:
        raise ValueError("an output of %d bytes; at most %d" % (len(line), MAX_OUTPUT_BYTES))
    return line


class _OpenSamples:
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

    def require(self, index: int) -> None:
        """Raises ``ValueError`` for a sample that is not open."""
        if index not in self._groups:
            raise ValueError("sample %d was not handed out here, or is answered" % index)

    def take_completed(self) -> List[int]:
        """The groups of which every sample was answered; each is returned once."""
        with self._lock:
            done = [number for number, left in self._left.items() if not left]
            for number in done:
                del self._left[number]
        return done


class _Standalone:
    """All samples, or every so many-th group of them; outputs go to a file of this rank."""

    def __init__(self) -> None:
        self._open = _OpenSamples()
        self._path = str(output_dir() / ("samples-%d.jsonl" % rank()))
        append_line(self._path, b"", fresh=True)

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

    def begin(self, index: int) -> None:
        self._open.require(index)  # nobody measures here

    def complete(
        self, index: int, line: bytes, seconds: Number, amounts: Dict[str, Number]
    ) -> None:
        del seconds, amounts
        self._open.close(index)
        append_line(self._path, line)

    def fail(self, index: int, reason: str) -> None:
        self._open.close(index)
        sys.stderr.write("orchestrate_kit: sample %d failed: %s\n" % (index, reason))


def _samples(count: int, file: str) -> Iterator[Sample]:
    if not file:
        yield from (Sample(index, None) for index in range(count))
        return
    with open(file, "rb") as lines:
        if lines.read(len(BOM_UTF8)) != BOM_UTF8:  # some editors begin a file with this mark
            lines.seek(0)
        for index, line in enumerate(lines):
            if count and index >= count:
                return
            try:
                yield Sample(index, json.loads(line.decode()))
            except ValueError as error:
                raise ValueError("%s:%d: not JSON: %s" % (file, index + 1, error)) from None


class _Leased:
    """A worker of a coordinator: numbered feeds come in, lines go out."""

    def __init__(self, group: int, identity: str, per_s: float) -> None:
        folder = os.environ["ORCHESTRATE_EXCHANGE_DIR"]
        self._path = os.path.join(folder, "exchange-%d.jsonl" % rank_in_run())
        self._inbox = os.path.join(folder, "in", "rank-%d" % rank_in_run())
        self._open = _OpenSamples()
        self._waiting: Deque[Tuple[int, List[Sample]]] = deque()
        self._taken = 0
        self._busy_s = 0.0
        self._ended = False
        begun = [os.environ.get("ORCHESTRATE_CONFIGURATION", ""), ARGUMENTS, group]
        digest = hashlib.sha256(json.dumps(begun).encode()).hexdigest()
        worker = {"configuration": digest, "identity": identity, "per_s": per_s}
        self._post({"type": "worker", **worker})

    def groups(self, count: int, group: int, file: str) -> Iterator[List[Sample]]:
        del count, group, file  # the coordinator has read them, too
        while self._more():
            number, samples = self._waiting.popleft()
            self._open.add(number, samples)
            began = time.monotonic()
            yield samples
            self._busy_s += time.monotonic() - began
            self._post_completed()

    def begin(self, index: int) -> None:
        self._open.require(index)
        self._post({"type": "first", "sample": index})

    def complete(
        self, index: int, line: bytes, seconds: Number, amounts: Dict[str, Number]
    ) -> None:
        self._open.close(index)
        output = json.loads(line)
        del output["index"]
        record = {"type": "output", "sample": index, "sha256": hashlib.sha256(line).hexdigest()}
        self._post({**record, "seconds": seconds, "amounts": amounts, "output": output})

    def fail(self, index: int, reason: str) -> None:
        self._open.close(index)
        self._post({"type": "failed", "sample": index, "reason": reason})

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
                self._post_completed()
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
        self._post({**took, "groups": [entry["group"] for entry in leased]})
        if fed["type"] == "refused":
            raise RuntimeError("this worker takes no part: %s" % fed.get("reason"))
        for entry in leased:
            first = entry["first"]
            data = entry.get("data") or [None] * entry["count"]
            of = entry.get("of") or [None] * entry["count"]
            each = zip(range(first, first + entry["count"]), data, of)
            samples = [Sample(*sample) for sample in each]
            self._waiting.append((entry["group"], samples))
        if fed["type"] == "recall":
            gone = set(fed["groups"])
            self._waiting = deque(entry for entry in self._waiting if entry[0] not in gone)
        self._ended = fed["type"] == "end"
        if self._ended:
            self._waiting.clear()

    def _post_completed(self) -> None:
        done = self._open.take_completed()
        if done:
            self._post({"type": "worked", "groups": done, "busy": self._busy_s})

    def _post(self, record: Dict[str, Any]) -> None:
        append_line(self._path, json.dumps({**record, "t": time.time()}, allow_nan=False).encode())


_windows: List[MeasuredWindow] = []
_at_work: List[Union[_Standalone, _Leased]] = []


def _work(group: int = 0, identity: str = "", per_s: float = 0.0) -> Union[_Standalone, _Leased]:
    """This process's share; it begins with the first call of :func:`groups`."""
    if not _at_work:
        if not group:
            raise ValueError("no samples were asked for: groups() comes first")
        leased = os.environ.get("ORCHESTRATE_SAMPLES") == "leased"
        _at_work.append(_Leased(group, identity, per_s) if leased else _Standalone())
    return _at_work[0]
