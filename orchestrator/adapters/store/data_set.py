"""The samples of divisible work: a JSONL file of the user's, and the run's own copy of it.

A run works on one state of its data: the file is read once when the run is asked for, which gives
the digest that ``resume`` compares, and copied into the run's folder when the work begins.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.adapters.store.atomic_files import make_private_dir, sync_dir
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.base.suggest import nearest_name
from orchestrator.core.model.request import SampleSet
from orchestrator.core.model.workload import Job

MAX_LINE_BYTES = 1024 * 1024
MAX_SAMPLES = 100_000_000


def sample_set(job: Job) -> SampleSet | None:
    """What divisible work is divided into; None for all other work.

    Raises :class:`UsageError` with file:line for a line that is not JSON or not what the workload
    takes, and for numbers of samples that make no sense.
    """
    source = job.workload.samples
    if source is None:
        return None
    file, count = str(job.values[source.file]), int(job.values[source.count])
    group = int(job.values[source.group])
    if group < 1:
        raise _refused(f"{source.group} is {group}: a group holds at least one sample")
    if not 0 <= count <= MAX_SAMPLES or not (count or file):
        raise _refused(f"{source.count} is {count}: from 1 to {MAX_SAMPLES}, or 0 for a whole file")
    if not file:
        return SampleSet(total=count, group=group)
    path = Path(file).expanduser().absolute()
    total, digest = _examine(path, count, source.any_of)
    if not total:
        raise _refused("there is no sample in it", str(path))
    return SampleSet(total=total, group=group, file=str(path), digest=digest)


class DataSet:
    """The lines of a run's samples, by their numbers."""

    def __init__(self, path: Path, total: int) -> None:
        self._file = path.open("rb")
        self._starts = array("Q", [0])
        for _, line in zip(range(total), self._file, strict=False):
            self._starts.append(self._starts[-1] + len(line))

    @classmethod
    def open(cls, samples: SampleSet, folder: Path) -> DataSet:
        """The copy in ``folder``, made if it is not there.

        Raises :class:`PreflightError` if the file is no longer what it was, ``OSError``.
        """
        copy = folder / f"samples-{samples.digest[:16]}.jsonl"
        if not copy.exists():
            make_private_dir(folder)
            _copy(Path(samples.file), samples, copy)
        return cls(copy, samples.total)

    def lines(self, first: int, count: int) -> list[bytes]:
        """The lines of ``count`` samples from ``first`` on. Raises ``OSError``."""
        start, end = self._starts[first], self._starts[first + count]
        return os.pread(self._file.fileno(), end - start, start)[:-1].split(b"\n")

    def size(self, first: int, count: int) -> int:
        """How many bytes that is."""
        return self._starts[first + count] - self._starts[first]

    def close(self) -> None:
        self._file.close()


def _examine(path: Path, count: int, any_of: Sequence[str]) -> tuple[int, str]:
    """How many samples there are, at most ``count`` unless that is 0, and their digest."""
    digest = hashlib.sha256()
    total = 0
    try:
        for line in _lines(path):
            if count and total >= count:
                break
            total += 1
            _check(line, f"{path}:{total}", any_of)
            digest.update(line + b"\n")
    except OSError as error:
        raise _refused(f"cannot be read: {error.strerror or error}", str(path)) from error
    return total, digest.hexdigest()


def _lines(path: Path) -> Iterator[bytes]:
    """Without ends of lines, and without the mark that some editors put before the first one."""
    with path.open("rb") as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line.removesuffix(b"\n").removesuffix(b"\r")


def _check(line: bytes, where: str, any_of: Sequence[str]) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise _refused(f"a sample of more than {MAX_LINE_BYTES} bytes", where)
    try:
        sample = json.loads(line.decode())  # of bytes it would guess an encoding
    except RecursionError:
        raise _refused("a sample that is nested too deeply", where) from None
    except ValueError as error:
        what = "an empty line" if not line.strip() else f"not JSON: {str(error)[:100]}"
        raise _refused(what, where) from None
    if any_of and not (isinstance(sample, dict) and sample.keys() & set(any_of)):
        raise _refused(_unlike(sample, any_of), where)


def _unlike(sample: object, any_of: Sequence[str]) -> str:
    """What such a sample lacks, and which of its keys may be meant."""
    wanted = " or ".join(f'{{"{key}": ...}}' for key in any_of)
    if not isinstance(sample, dict):
        return f"not an object, but {wanted} is what the workload takes"
    near = (nearest_name(str(key)[:80], any_of) for key in list(sample)[:10])
    meant = next((f"; did you mean {key!r}?" for key in near if key), "")
    return f"no {wanted} in it, which the workload takes{meant}"


def _refused(what: str, where: str = "") -> UsageError:
    remedy = "one sample a line, each a JSON value" if where else "--set NAME=VALUE"
    return UsageError(what, id="workload.samples", where=where, remedy=remedy)


def _copy(source: Path, samples: SampleSet, target: Path) -> None:
    """``target`` appears complete and verified, or not at all."""
    digest = hashlib.sha256()
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with staging.open("wb") as file:
            for _, line in zip(range(samples.total), _lines(source), strict=False):
                digest.update(line + b"\n")
                file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != samples.digest:
            raise PreflightError(
                "the samples changed since the run was asked for",
                id="OR-WORK-004",
                where=source,
                remedy="put the file back, and resume; or begin another run",
            )
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)
    sync_dir(target.parent)
