"""What an attempt asked Slurm for, from before it asked until Slurm has nothing of it any more."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress

from orchestrator.node_agent.base.node_layout import AttemptLayout, write_atomically
from orchestrator.node_agent.base.schedulers import job_record
from orchestrator.node_agent.slurm.slurm_tools import SlurmError, ask

RELEASE_S = 10.0
QUICK_S = 3.0  # whoever asks is itself about to be ended
POLL_S = 0.1
RUNNING, ENDING = "R", "CG"  # of the latter only the epilogue is left
COMPLETING = "COMPLETING"  # until then it hides how
NO_JOB = "Invalid job id"
DURATION = re.compile(r"(?:(\d{1,5})-)?(?:(?:(\d{1,2}):)?(\d{1,3}):)?(\d{1,2})")
SLURM = "slurm"  # as base/schedulers.py calls it


class SlurmJobRecord:
    """What an attempt asked Slurm for: a job of its own, or a step of a job that the user holds.

    It goes by a name that no other has; it is written down before Slurm is asked.
    """

    def __init__(self, attempt: AttemptLayout, name: str, within: str) -> None:
        self.attempt = attempt
        self.name = name
        self.within = within

    @classmethod
    def recorded(cls, attempt: AttemptLayout) -> SlurmJobRecord | None:
        try:
            with open(job_record(attempt, SLURM)) as file:
                told = json.loads(file.read(4096))
            return cls(attempt, str(told["name"]), str(told["within"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def record(self) -> None:
        told = {"name": self.name, "within": self.within}
        write_atomically(job_record(self.attempt, SLURM), json.dumps(told).encode())

    def forget(self) -> None:
        """Slurm has nothing of it any more."""
        with suppress(OSError):
            os.unlink(job_record(self.attempt, SLURM))

    def found(self) -> list[tuple[str, str, str]]:
        """(id, state, reason) of what Slurm still has. Raises :class:`SlurmError`."""
        if self.within:
            steps = self._squeue("--steps", f"--jobs={self.within}", "--format=%i|%j|")
            return [(id, RUNNING, "") for id, name, _ in steps if name == self.name]
        jobs = self._squeue(f"--name={self.name}", "--format=%i|%t|%r")
        return [(id, state, reason) for id, state, reason in jobs if state != ENDING]

    def _squeue(self, *asked: str) -> list[tuple[str, str, str]]:
        try:
            text = ask("squeue", "--noheader", f"--user={os.getuid()}", *asked)
        except SlurmError as error:
            if self.within and NO_JOB in str(error):  # the user's own job is over
                return []
            raise
        words = (line.split("|", 2) for line in text.splitlines() if line.count("|") > 1)
        return [(id, second, third) for id, second, third in words]

    def cancel(self) -> list[tuple[str, str, str]]:
        """End it; what is still there after ``RELEASE_S``. Raises :class:`SlurmError`."""
        deadline = time.monotonic() + RELEASE_S
        while True:
            left = self.found()
            if not left:
                self.forget()
                return []
            if time.monotonic() >= deadline:
                return left
            with suppress(SlurmError):  # it may end at this very moment; the next look tells
                ask("scancel", "--quiet", *(id for id, _, _ in left))
            time.sleep(POLL_S)


def release_job(attempt: AttemptLayout) -> list[dict[str, object]]:
    """End what the attempt asked Slurm for; what is still there, as survivors are told."""
    job = SlurmJobRecord.recorded(attempt)
    if job is None:
        return []
    try:
        left = job.cancel()
    except SlurmError as error:
        return [{"pid": job.name, "comm": f"Slurm job: {error}", "state": "?"}]
    return [{"pid": id, "comm": "Slurm job", "state": state} for id, state, _ in left]


def find_time_left(id: str) -> float | None:
    """Seconds until Slurm ends a job for its time limit; None = it has none, or Slurm does not tell
    for now. Raises :class:`SlurmError`.
    """
    shown = ask("squeue", "--noheader", f"--jobs={id}", "--format=%L").strip()
    return parse_duration(shown)


def parse_duration(text: str) -> float | None:
    """``[days-][[hours:]minutes:]seconds`` in seconds; None for words such as ``UNLIMITED``."""
    found = DURATION.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def job_ending(id: str) -> str:
    """Why Slurm ended a job, as soon as it tells. Raises :class:`SlurmError`."""
    deadline = time.monotonic() + QUICK_S
    while True:
        shown = ask("scontrol", "--oneliner", "show", "job", id, within_s=QUICK_S)
        told = dict(word.split("=", 1) for word in shown.split() if "=" in word)
        state, reason = told.get("JobState", "?"), told.get("Reason", "None")
        if state != COMPLETING or time.monotonic() >= deadline:
            known = [word for word in (state, reason) if word not in (COMPLETING, "None")]
            return ", ".join(known) or "no reason given"
        time.sleep(POLL_S)
