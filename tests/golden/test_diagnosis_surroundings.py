"""What stands around a failure changes no diagnosis: warnings, other ranks, what followed.

``diagnosis_noise.txt`` holds what runs write that do not fail by it, divided by ``---``.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.diagnosis.log_reader import Gathering
from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Diagnosis,
    FindingKind,
    LogSource,
)
from orchestrator.core.diagnosis.first_cause import find_first_cause

from .test_diagnosis_wrapped import LOGS

NOISE = (Path(__file__).parent / "diagnosis_noise.txt").read_text().strip("\n").split("\n---\n")
STRANGER = "[rank61]: "
STEPS = [f"step {n} | loss 2.{n} | 1210 ms/it\n" for n in range(10, 22)]
RAISED = """\
Traceback (most recent call last):
  File "/w/t.py", line 9, in <module>
    main()
  File "/w/t.py", line 5, in main
    x = batch['images']
KeyError: 'images'
"""
WARNINGS = """\
/opt/lib/torch/cuda/__init__.py:61: FutureWarning: The pynvml package is deprecated.
2026-03-11 13:40:09.1: E external/xla/cuda_fft.cc:467] Unable to register cuFFT factory
`torch_dtype` is deprecated! Use `dtype` instead!
[WARNING]  async_io requires the dev libaio .so object and headers but these were not found.
wandb: WARNING Path /scratch/wandb/ wasn't writable, using system temp directory.
huggingface/tokenizers: The current process just got forked. Disabling parallelism ...
libibverbs: Warning: couldn't load driver 'libmlx4-rdmav34.so': No such file or directory
"""
WATCHDOG = (
    "[rank{0}]:[E311 14:32:20.1 ProcessGroupNCCL.cpp:629] [Rank {0}] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=120, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, "
    "Timeout(ms)=600000) ran for 600073 milliseconds before timing out.\n"
)
STORE = (
    "[rank61]:[W311 14:41:01.3 TCPStore.cpp:106] [c10d] sendBytes failed on SocketImpl(fd=52, "
    "addr=[zz1]:51012, remote=[zz1]:29500): Broken pipe\n"
)
REMOTE = (
    "[rank61]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2501, "
    "remote process exited or there was a network error, NCCL version 2.21.5\n"
    "[rank61]: ncclRemoteError: A call failed possibly due to a network error or a remote process "
    "exiting prematurely.\n"
)
AGENT = (
    "W0311 14:40:00.1 9999 torch/distributed/elastic/multiprocessing/api.py:900] Sending process "
    "10001 closing signal SIGTERM\n"
)
SRUN = (
    "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\n"
    "slurmstepd: error: *** STEP 8101.0 ON zz9 CANCELLED AT 2026-03-11T14:41:00 ***\n"
    "srun: error: zz10: task 61: Killed\n"
)


def interleave(text: str) -> str:
    """With a line of a healthy rank after each."""
    lines = text.splitlines()
    return "".join(f"{line}\n{STRANGER}step {n} loss 2.1\n" for n, line in enumerate(lines))


BEFORE: dict[str, Callable[[str], str]] = {
    "warnings": lambda text: WARNINGS + text,
    "steps": lambda text: "".join(STEPS) + text,
}
AFTER: dict[str, str] = {
    "watchdogs": WATCHDOG.format(61) + WATCHDOG.format(62),
    "the store's clients": STORE,
    "peers": REMOTE,
    "torchrun": AGENT,
    "srun": SRUN,
}
# Several lines of one message, of which none says whose they are: other lines may not part them.
UNLABELLED = {
    "seventeenth/torchelastic-error-file",
    "seventh/spawned-ranks-wait-for-rank-0",
    "tenth/paddle-cublas-hint",
}


def diagnosed(text: str) -> Diagnosis | None:
    gathering = Gathering()
    gathering.read_stream(io.BytesIO(text.encode()), LogSource(name="job.log"))
    return find_first_cause(
        gathering.clues, remarks=gathering.remarks, sources=gathering.sources
    ).diagnosis


def verdict(found: Diagnosis | None) -> tuple[str, str | None, int | None] | None:
    return (found.id, found.node, found.rank) if found else None


def _share(n: int, of: int) -> dict[str, str]:
    """Each log once, so that all of them take no longer than one log for each."""
    return {name: text for name, text in LOGS.items() if zlib.crc32(name.encode()) % of == n}


@pytest.mark.parametrize("n, change", list(enumerate(BEFORE.values())), ids=BEFORE)
def test_what_was_written_before_changes_no_verdict(n: int, change: Callable[[str], str]) -> None:
    """Warnings and progress, before anything failed."""
    logs = _share(n, len(BEFORE))

    changed = [name for name, t in logs.items() if verdict(diagnosed(change(t))) != _plain(t)]

    assert changed == []


@pytest.mark.parametrize("n, tail", list(enumerate(AFTER.values())), ids=AFTER)
def test_what_follows_on_other_ranks_changes_no_cause(n: int, tail: str) -> None:
    """They lose a peer, time out, and are told to end."""
    logs = {name: t for name, t in _share(n, len(AFTER)).items() if _is_cause(diagnosed(t))}

    changed = [
        name
        for name, text in logs.items()
        if verdict(diagnosed(text.rstrip("\n") + "\n" + tail)) != _plain(text)
    ]

    assert len(logs) > 100
    assert changed == []


def test_a_healthy_rank_between_the_lines_changes_no_verdict() -> None:
    """A line of its own after each line."""
    logs = {name: text for name, text in _share(0, 4).items() if name not in UNLABELLED}

    changed = [
        name for name, text in logs.items() if verdict(diagnosed(interleave(text))) != _plain(text)
    ]

    assert changed == []


@pytest.mark.parametrize("noise", NOISE)
def test_what_ends_no_run_is_not_blamed(noise: str) -> None:
    """Neither where the training goes on, nor where something else fails after that."""
    healthy = "".join([*STEPS[:6], noise + "\n", *STEPS[6:]])
    labelled = "".join(
        f"[rank0]: {line}\n" for line in (noise + "\n" + "".join(STEPS)).splitlines()
    )
    other = "".join(f"[rank3]: {line}\n" for line in RAISED.splitlines())

    found = diagnosed(healthy)
    failed = [diagnosed(healthy + RAISED), diagnosed(labelled + other)]

    assert not _is_cause(found)
    assert [each and "'images'" in each.cause for each in failed] == [True, True]


def _plain(text: str) -> tuple[str, str | None, int | None] | None:
    return verdict(diagnosed(text))


def _is_cause(found: Diagnosis | None) -> bool:
    going = found is not None and found.advice is Advice.GO_ON
    return found is not None and found.kind is FindingKind.CAUSE and not going
