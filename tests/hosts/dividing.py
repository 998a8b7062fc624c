"""A workload that can be divided, started as people do, and what must come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.architecture.source import ROOT
from tests.hosts.running import Desk, Ending, Job, wait_until

SQUARES = ROOT / "tests" / "workloads" / "programs" / "squares"


def records(desk: Desk, run: str, type: str, node: str = "*") -> Iterator[dict[str, Any]]:
    """What workers have told of one kind, as it lies here."""
    for path in sorted((desk.folder(run) / "exchange").glob(f"{node}/*/exchange-*.jsonl")):
        whole = path.read_bytes().rpartition(b"\n")[0]
        for line in whole.splitlines():
            record = json.loads(line)
            if record["type"] == type:
                yield record


def wait_for_outputs(
    desk: Desk, job: Job, count: int, node: str = "*", within_s: float = 30.0
) -> None:
    """Until the coordinator has so many outputs (of ``node``)."""
    what = f"{count} outputs of {node}: {job.err}"
    wait_until(what, lambda: len(list(records(desk, job.run, "output", node))) >= count, within_s)


def squares(total: int) -> bytes:
    """What the merged outputs must be, byte for byte."""
    lines = (json.dumps({"index": i, "square": i * i}, sort_keys=True) for i in range(total))
    return "".join(f"{line}\n" for line in lines).encode()


def merged(desk: Desk, run: str) -> bytes | None:
    """The merged outputs, if they are there and are what their digest says."""
    path: Path = desk.folder(run) / "artifacts" / "samples.jsonl"
    if not path.exists():
        return None
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert path.with_name("samples.sha256").read_text() == f"{digest}  samples.jsonl\n"
    return content


def check_complete(desk: Desk, job: Job, ending: Ending, total: int, status: str) -> None:
    """Every sample once, exact, and nothing else."""
    assert (ending.code, ending.result["status"]) == (0, status), job.err
    samples = ending.result["samples"]
    assert (samples["total"], samples["done"], samples["failed"]) == (total, total, 0)
    assert merged(desk, job.run) == squares(total)
