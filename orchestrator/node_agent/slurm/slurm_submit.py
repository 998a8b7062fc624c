"""Asks Slurm for the nodes of a run, on behalf of the supervisor of its first node.

``python3 -I -S slurm_submit.py NAME --wait SECONDS [--within JOB] --node NODE=PYTHON... --
OPTIONS``: srun starts ``slurm_task.py`` under each node's own interpreter. This process tells how
the job fares, ends it when told to, and says in the end what Slurm refused; how ranks ended others
tell.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from orchestrator.node_agent.base.node_layout import AttemptLayout
from orchestrator.node_agent.process.rank_shim import die_with_parent
from orchestrator.node_agent.slurm.slurm_jobs import RUNNING, SlurmJobRecord
from orchestrator.node_agent.slurm.slurm_tools import SlurmError, complaint, environment, tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

STARRED = " ***"  # how slurmstepd ends what it says of a job that it ends
ENDED = "OR-SLURM-005"
REFUSED, QUEUED, NOT_BEGUN = "OR-SLURM-002", "OR-SLURM-003", "OR-SLURM-004"
TICK_S = 0.1
FIRST_LOOK_S = 1.0
LOOK_EVERY_S = 2.0
BEGIN_S = 90.0
WITHDRAW_S = 5.0
MAX_WORDS = 200
KEPT_LINES = 50
# Each node's own interpreter becomes the task. Everything but this text is an argument.
SHELL = (
    'text=$1 name=$2; shift 2; while [ "$#" -gt 1 ]; do '
    'if [ "$1" = "$SLURMD_NODENAME" ]; then exec "$2" -I -S -c "$text" "$name"; fi; '
    'shift 2; done; echo "$SLURMD_NODENAME is not in the plan" >&2; exit 3'
)


class Submission:
    """One srun from its start to its end."""

    def __init__(
        self, job: SlurmJobRecord, nodes: dict[str, str], options: list[str], wait_s: float
    ) -> None:
        self._job = job
        self._nodes = nodes
        self._options = options
        self._wait_s = wait_s
        self._began_at = time.monotonic()
        self._look_at = self._began_at + FIRST_LOOK_S
        self._running_since = 0.0
        self._told = ""
        self._begun: set[str] = set()
        self._errors: list[str] = []
        self._unread = {1: b"", 2: b""}
        self.stopped = False

    def run(self) -> int:
        """The exit code, after everything was said."""
        self._job.record()
        self._start()
        while self._srun.poll() is None:
            self._read()
            if self.stopped and not self._begun:
                return self._withdraw()
            if len(self._begun) < len(self._nodes) and time.monotonic() >= self._look_at:
                late = self._look()
                if late:
                    self._withdraw()
                    return refuse(*late)
            time.sleep(TICK_S)
        self._read()
        return self._conclude(self._srun.returncode)

    def _start(self) -> None:
        with open(os.path.join(os.path.dirname(__file__), "slurm_task.py")) as file:
            text = file.read()
        pairs = [word for pair in self._nodes.items() for word in pair]
        task = ["/bin/sh", "-c", SHELL, "orchestrate", text, self._job.name, *pairs]
        argv = [tool("srun"), f"--job-name={self._job.name}", *self._options, *task]
        marker = {"ORCHESTRATE_ATTEMPT_DIR": self._job.attempt.root}  # sweeps find it
        me = os.getpid()
        self._srun = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment(), **marker},
            cwd="/",
            preexec_fn=lambda: die_with_parent(me, signal.SIGKILL),  # noqa: PLW1509 - no threads
        )
        for stream in (self._srun.stdout, self._srun.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)

    # ---- what srun and its tasks say ------------------------------------------------------------

    def _read(self) -> None:
        for line in self._new_lines(1, self._srun.stdout):
            word, _, node = line.partition(" ")
            if word == "began":
                self._begun.add(node)
        for line in self._new_lines(2, self._srun.stderr):
            sys.stderr.write(line + "\n")
            self._errors = [*self._errors, line][-KEPT_LINES:]
        sys.stderr.flush()
        if len(self._begun) == len(self._nodes):
            self._say(f"Slurm's job runs on {', '.join(sorted(self._begun))}")

    def _new_lines(self, number: int, stream: object) -> list[str]:
        assert stream is not None
        data = self._unread[number]
        while len(data) < 1024 * 1024:
            try:
                chunk = os.read(stream.fileno(), 65536)  # type: ignore[attr-defined]
            except BlockingIOError:
                break
            if not chunk:
                break
            data += chunk
        *complete, self._unread[number] = data.split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def _say(self, text: str) -> None:
        """Once, and whole: it is shown while the run goes on."""
        if text != self._told:
            self._told = text
            os.write(1, f"{text}\n".encode(errors="replace"))

    # ---- what squeue says -----------------------------------------------------------------------

    def _look(self) -> tuple[str, str] | None:
        """Tell how the job fares; what is wrong with it, if anything is."""
        now = time.monotonic()
        self._look_at = now + LOOK_EVERY_S
        try:
            jobs = self._job.found()
        except SlurmError as error:
            self._say(f"Slurm does not report the job: {error}")
            jobs = []
        for id, state, reason in jobs:
            if state == RUNNING:
                self._running_since = self._running_since or now
                self._say(f"Slurm's job {id} has its nodes")
            else:
                self._say(f"Slurm's job {id} waits: {reason[:MAX_WORDS]}")
        if self._running_since and now - self._running_since >= BEGIN_S:
            absent = ", ".join(sorted(set(self._nodes) - self._begun))
            return NOT_BEGUN, f"Slurm gave the nodes, but nothing began on {absent}"
        if not self._running_since and now - self._began_at >= self._wait_s:
            return QUEUED, f"after {self._wait_s:g} s {self._told or 'the job waits'}"
        return None

    # ---- the end --------------------------------------------------------------------------------

    def _withdraw(self) -> int:
        """Take the job back."""
        self._srun.terminate()
        with suppress(SlurmError):  # the sweep that follows asks again, and tells
            self._job.cancel()
        try:
            self._srun.wait(WITHDRAW_S)
        except subprocess.TimeoutExpired:
            self._srun.kill()
        return 1

    def _conclude(self, code: int) -> int:
        with suppress(SlurmError):  # the sweep that follows asks again, and tells
            self._job.cancel()
        by_slurm = [line for line in self._errors if line.endswith(STARRED)]
        if code == 0 or (self.stopped and not by_slurm):
            return 0
        said = complaint(by_slurm or self._errors)[: 2 * MAX_WORDS]
        if by_slurm or len(self._begun) == len(self._nodes):
            return refuse(ENDED, f"Slurm ended the job: {said}")
        if self._begun or self._running_since:
            return refuse(NOT_BEGUN, f"Slurm gave the nodes, but not all began: {said}")
        return refuse(REFUSED, f"Slurm refused the job: {said}")


def refuse(id: str, text: str) -> int:
    """The last line that this process writes is what the run is told to have failed of."""
    sys.stderr.write(f"{id}: {text}\n")
    return 1


def main() -> NoReturn:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--within", default="")
    parser.add_argument("--wait", type=float, required=True)
    parser.add_argument("--node", action="append", default=[])
    split = sys.argv.index("--")
    given = parser.parse_args(sys.argv[1:split])
    attempt = AttemptLayout(os.environ["ORCHESTRATE_ATTEMPT_DIR"])
    name = f"{given.name}.{os.environ['ORCHESTRATE_ATTEMPT']}"
    nodes = dict(pair.split("=", 1) for pair in given.node)
    submission = Submission(
        SlurmJobRecord(attempt, name, given.within), nodes, sys.argv[split + 1 :], given.wait
    )

    def stop(*_: object) -> None:
        submission.stopped = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        code = submission.run()
    except SlurmError as error:
        code = refuse("OR-SLURM-001", str(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
