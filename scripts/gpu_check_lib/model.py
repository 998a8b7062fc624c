"""Points for the cost model's coefficients and its held-out check, on up to four GPUs.

    scripts/gpu_check DIR OUT model
    PYTHONPATH=scripts python3 -m gpu_check_lib.model OUT     # the same, with torch and peft alone

First the points of one GPU, a process for each GPU, side by side; then those of two, on both halves
of the machine, and those of four. Each process has a time by which it must end, by the number of
its points; what it measured until then is in `model.jsonl`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .gpus import gpu_count
from .model_points import INFERENCE, POINTS, by_model

WORKER = Path(__file__).with_name("model_worker.py")
START_S = 30.0  # of a process
ENGINE_POINT_S, OTHER_POINT_S = 3.5, 5.5  # about; the latter with a share of making the model
ENDING_S = 10.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one process measures, and the GPUs that it sees."""

    gpus: tuple[int, ...]
    points: tuple[int, ...]


def gpus_here() -> int:
    """At most four of them are used."""
    return min(4, gpu_count())


def measure(out: Path, gpus: int) -> int:
    """Measure all points that so many GPUs can; how many lines were written."""
    out.mkdir(parents=True, exist_ok=True)
    found = out / "model.jsonl"
    found.unlink(missing_ok=True)
    for size in (1, 2, 4):
        shares = list(shares_of(size, gpus))
        if shares:
            _run(shares, found, START_S + max(map(_share_s, shares)))
    return len(found.read_text().splitlines()) if found.exists() else 0


def shares_of(size: int, gpus: int) -> Iterable[Share]:
    """The points of `size` GPUs over as many groups as there are. Points of one model stay
    together where they can: it is made once.
    """
    points = [number for number, point in enumerate(POINTS) if point.gpus == size]
    groups = max(gpus, 1) // size
    if not groups:
        return
    kinds = by_model(points)
    shares: list[list[int]] = [[] for _ in range(groups)]
    for key in sorted(kinds, key=lambda key: -_points_s(kinds[key])):
        min(shares, key=_points_s).extend(kinds[key])
    for group, share in enumerate(shares):
        if share:
            seen = tuple(range(group * size, (group + 1) * size)) if gpus else ()
            yield Share(seen, tuple(share))


def _points_s(numbers: Iterable[int]) -> float:
    """How long these take, roughly."""
    alone = (POINTS[number].kind == INFERENCE for number in numbers)
    return sum(ENGINE_POINT_S if engine else OTHER_POINT_S for engine in alone)


def _share_s(share: Share) -> float:
    return _points_s(share.points)


def _run(shares: Sequence[Share], found: Path, limit: float) -> None:
    until = time.time() + limit
    running = [(share, _start(share, found, until)) for share in shares]
    for share, process in running:
        try:
            code = process.wait(max(0.0, until - time.time()))
        except subprocess.TimeoutExpired:
            code = _end(process)
        print(f"== GPUs {share.gpus}: exit {code}", flush=True)


def _start(share: Share, found: Path, until: float) -> subprocess.Popen[bytes]:
    argv = [sys.executable]
    if len(share.gpus) > 1:
        argv += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        argv += [str(len(share.gpus))]
    argv += [str(WORKER), "--out", str(found), "--until", str(until)]
    argv += ["--points", *map(str, share.points)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    if share.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, share.gpus))
    log = found.with_name(f"model-{'-'.join(map(str, share.gpus)) or 'cpu'}.log")
    with log.open("ab") as stream:
        return subprocess.Popen(
            argv, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )


def _end(process: subprocess.Popen[bytes]) -> int:
    """Of a launcher and its ranks, which are its session."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


if __name__ == "__main__":
    print(f"== {measure(Path(sys.argv[1]).resolve(), gpus_here())} points", flush=True)
