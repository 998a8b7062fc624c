"""What collectors, launchers and terminals put around lines changes no diagnosis."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.diagnosis.log_reader import Gathering
from orchestrator.core.diagnosis.diagnosis_model import LogSource
from orchestrator.core.diagnosis.first_cause import find_first_cause

GOLDEN = Path(__file__).parent
BEGIN = datetime(2026, 6, 2, 1, 0, 0, tzinfo=UTC)
CONTRADICTED = (
    # The summary's own time makes its rank the first to fail, once the other lines have times, too.
    "TORCH-RDZV-005/container-id",
    # Two nodes' lines, which one rank cannot have written.
    "twentieth/nccl-version-mismatch",
)

Wrap = Callable[[int, str], str]


def _clock(n: int, pattern: str = "%Y-%m-%dT%H:%M:%S") -> str:
    return (BEGIN + timedelta(seconds=3 * n)).strftime(pattern)


def _engine(n: int, line: str) -> str:
    record = {"log": line + "\n", "stream": "stderr", "time": _clock(n) + ".000Z"}
    return json.dumps(record)


WRAPS: dict[str, Wrap] = {
    "records of a container engine": _engine,
    "kubectl": lambda _, line: f"[pod/train-0/pytorch] {line}",
    "journald": lambda n, line: f"{_clock(n, '%b %d %H:%M:%S')} gpu77 train[123]: {line}",
    "journald of a record": lambda n, line: (
        f"{_clock(n, '%b %d %H:%M:%S')} gpu77 train[123]: {_engine(n, line)}"
    ),
    "CRI": lambda n, line: f"{_clock(n)}.100Z stderr F {line}",
    "compose": lambda _, line: f"worker-1  | {line}",
    "colours": lambda _, line: f"\x1b[31m{line}\x1b[0m",
    "Ray": lambda _, line: f"\x1b[36m(Actor pid=12, ip=192.0.2.3)\x1b[0m {line}",
    "vLLM": lambda _, line: f"(Worker_TP1 pid=12) {line}",
    "srun --label": lambda _, line: f" 3: {line}",
    "pdsh": lambda _, line: f"gpu77: {line}",
    "mpirun": lambda _, line: f"[1,3]<stderr>:{line}",
    "torchrun in a pod": lambda n, line: (
        f"[pod/train-0/pytorch] {_clock(n)}Z [default3]:[rank3]: {line}"
    ),
    "Windows": lambda _, line: line.rstrip("\r") + "\r",
}


def _logs() -> dict[str, str]:
    """The text of each golden case that is a single log."""
    texts = {}
    for case in sorted(path.parent for path in GOLDEN.glob("diagnosis*/**/expected.json")):
        logs = [path for path in case.iterdir() if path.suffix != ".json"]
        if len(logs) == 1 and logs[0].is_file():
            texts["/".join(case.parts[-2:])] = logs[0].read_bytes().decode("utf-8", "replace")
    return texts


LOGS = _logs()


def cause_of(text: str) -> str | None:
    """The id of the rule that explains the log."""
    gathering = Gathering()
    gathering.read_stream(io.BytesIO(text.encode()), LogSource(name="job.log"))
    found = find_first_cause(
        gathering.clues, remarks=gathering.remarks, sources=gathering.sources
    ).diagnosis
    return found.id if found else None


@pytest.fixture(scope="module")
def plain() -> dict[str, str | None]:
    """The diagnosis of each log as it stands."""
    return {name: cause_of(text) for name, text in LOGS.items()}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_wrapped_log_has_the_same_cause(wrap: Wrap, plain: dict[str, str | None]) -> None:
    """Every line within the same frame."""
    assert len(LOGS) > 100
    wrapped = {
        name: _wrapped(text, wrap) for name, text in LOGS.items() if name not in CONTRADICTED
    }

    found = {name: cause_of(text) for name, text in wrapped.items()}

    assert {name: cause for name, cause in found.items() if cause != plain[name]} == {}


def _wrapped(text: str, wrap: Wrap) -> str:
    lines = text.rstrip("\n").replace("\r\n", "\n").split("\n")
    return "\n".join(wrap(n, line) for n, line in enumerate(lines)) + "\n"
