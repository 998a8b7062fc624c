"""Serves a load generator: LoadGen's process on one side, the service of divisible work on the
other, ``core.sharing.load_machine`` between them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.loadgen.load_plan import LoadPlan, mismatches, plan_test
from orchestrator.adapters.loadgen.process import Answer, LoadGenProcess
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.model.load import LoadMode, LoadTerms
from orchestrator.core.model.request import RunRequest
from orchestrator.core.sharing.ledger import OutputLocation
from orchestrator.core.sharing.load_machine import SILENCE_S, LoadMachine
from orchestrator.core.sharing.load_protocol import (
    AddSamples,
    Answered,
    EndSamples,
    GiveUp,
    LoadAction,
    LoadEvent,
    Looked,
    SampleBegun,
    StartTest,
    TellAnswered,
    TellBegun,
    WorkersSeen,
)
from orchestrator.core.sharing.sample_machine import SampleMachine
from orchestrator.core.sharing.sample_protocol import (
    ForwardAnswer,
    ForwardFirstToken,
    IssueEnded,
    SamplesIssued,
)
from orchestrator.parsing.replies.load.loadgen_logs import (
    LoadGenVerdict,
    read_accuracy,
    read_performance,
)
from orchestrator.parsing.replies.load.loadgen_records import SettingsRead
from orchestrator.parsing.replies.sample_records import answer_scores, answer_tokens

SUMMARY_S = 120.0
# A server test of one query in a minute is silent for minutes; a gap of so many is none of chance.
SILENT_GAPS = 30.0
MAX_FILE_BYTES = 1 << 30
TOKENS = "generated_tokens"
MAX_TOKENS = 2**31 - 1
SUMMARY, DETAIL, ACCURACY = (
    f"mlperf_log_{name}" for name in ("summary.txt", "detail.txt", "accuracy.json")
)
NOTICE = "NOTICE.txt"

# Where an accepted output lies.
Locate = Callable[[int], tuple[Path, OutputLocation] | None]


class LoadDesk:
    """One attempt's load generator. ``wake`` is called when it said something; ``locate`` finds a
    sample's accepted output.
    """

    def __init__(
        self,
        request: RunRequest,
        terms: LoadTerms,
        folder: Path,
        wake: Callable[[], None],
        locate: Locate,
    ) -> None:
        samples = request.samples
        assert samples is not None  # no other work has load terms
        self.terms = terms
        self._run_id = request.run_id
        self._samples = samples.total
        self._folder = folder
        self._notice = request.job.workload.notice
        self._wake = wake
        self._locate = locate
        self._group = terms.group(samples.group)
        self._process: LoadGenProcess | None = None
        self._machine: LoadMachine | None = None
        self._plan: LoadPlan | None = None
        self._began: list[int] = []
        self._answers: list[Answer] = []
        self._logged: dict[int, bytes] = {}
        self._scores: dict[int, Mapping[str, float]] = {}

    async def begin(self, now: float) -> None:
        """Start the process, not the test. Raises ``OrchestrateError``, ``OSError``."""
        if self._folder.exists():
            raise RunFailed(
                "the load test ended with the coordinator that ran it",
                id="OR-LOAD-003",
                why="LoadGen cannot go on with a test that it began in another process",
                remedy=f"orchestrate resume --retry {self._run_id} begins it anew",
            )
        make_private_dir(self._folder)
        if self._notice:
            (self._folder / NOTICE).write_text(f"{self._notice}\n")
        silence_s = max(SILENCE_S, SILENT_GAPS / (self.terms.target_qps or 1.0))
        self._machine = LoadMachine(self._group, now, silence_s)
        self._process = await LoadGenProcess.start(self._folder, self._wake)

    def attend(self, workers: SampleMachine, now: float) -> Iterator[SamplesIssued | IssueEnded]:
        """Take in how the workers are and what LoadGen said; what the work has to hear of it.

        Raises ``OrchestrateError`` when the test cannot come to its end.
        """
        assert self._process is not None
        for said in self._process.take():
            if isinstance(said, SettingsRead):
                self._check_settings(said.values)
            else:
                yield from self._step(said, now)
        per_s = sum(workers.warm_up_per_s.get(worker, 0.0) for worker in workers.ready)
        yield from self._step(WorkersSeen(len(workers.ready), per_s, workers.starting), now)
        yield from self._step(Looked(), now)
        self._send_answers()

    def hear(self, said: ForwardFirstToken | ForwardAnswer, now: float) -> None:
        """A worker began with a sample's output, or ended it."""
        event: LoadEvent = SampleBegun(said.sample)
        if isinstance(said, ForwardAnswer):
            event = Answered(said.sample, said.amounts)
        for action in self._require_machine().step(event, now):
            self._tell(action)

    def indices(self, first: int, count: int) -> list[int]:
        """Which samples of the data set those asked for from ``first`` on are."""
        return self._require_machine().indices(first, count)

    async def finish(self) -> LoadGenVerdict:
        """What LoadGen says of the test, once it has said so. Bounded, raises ``OSError``."""
        machine = self._machine
        if machine is None or not machine.started:
            return LoadGenVerdict(invalid="no test was begun")
        assert self._process is not None
        self._send_answers()
        if machine.complete:
            await self._process.wait(SUMMARY_S)
        await self._process.close()
        return await asyncio.to_thread(self._read_verdict)

    async def close(self) -> None:
        """End the process; what it wrote stays. Never raises."""
        if self._process is not None:
            await self._process.close()

    # ---- what is done ---------------------------------------------------------------------------

    def _require_machine(self) -> LoadMachine:
        assert self._machine is not None  # it has begun
        return self._machine

    def _step(self, event: LoadEvent, now: float) -> Iterator[SamplesIssued | IssueEnded]:
        for action in self._require_machine().step(event, now):
            yield from self._perform(action)

    def _perform(self, action: LoadAction) -> Iterator[SamplesIssued | IssueEnded]:
        match action:
            case AddSamples(count=count):
                yield SamplesIssued(count)
            case EndSamples():
                yield IssueEnded()
            case _:
                self._tell(action)

    def _tell(self, action: LoadAction) -> None:
        """What concerns the generator alone."""
        match action:
            case StartTest(per_s=per_s):
                assert self._process is not None
                self._plan = plan_test(self.terms, self._samples, per_s)
                self._process.send(self._plan.command())
            case TellBegun(id=id):
                self._began.append(id)
            case TellAnswered():
                self._answers.append(self._answer(action))
            case GiveUp(reason=reason):
                raise _broken_test(reason)
            case _:
                raise AssertionError(action)  # of the work

    def _check_settings(self, values: Mapping[str, object]) -> None:
        """The test begins only if LoadGen has what the rules ask for."""
        assert self._plan is not None
        assert self._process is not None
        (self._folder / "settings.json").write_text(json.dumps(dict(values), indent=2) + "\n")
        wrong = mismatches(self._plan, values)
        if wrong:
            raise RunFailed(
                f"LoadGen's settings are not those of the {self.terms.rules} rules: "
                + "; ".join(wrong[:4]),
                id="OR-LOAD-002",
                why="they were read back after they had been set",
                remedy=f"{install_command('mlperf')} brings the LoadGen that the rules are of",
            )
        self._process.send({"type": "go"})

    def _answer(self, told: TellAnswered) -> Answer:
        tokens = int(min((told.amounts or {}).get(TOKENS, 0.0), MAX_TOKENS))
        content = b""
        if self.terms.mode is LoadMode.ACCURACY:
            index, output = self.indices(told.number, 1)[0], self._accepted_output(told.number)
            content = answer_tokens(output, self.terms.answer)
            self._logged[index] = content
            self._scores[index] = answer_scores(output, self.terms.score)
        return told.id, tokens, content

    def _accepted_output(self, number: int) -> bytes:
        """The record of a sample's output; nothing for a sample that was given up."""
        place = self._locate(number)
        if place is None:
            return b""
        path, at = place
        with path.open("rb") as file:
            file.seek(at.offset)
            return file.read(at.size)

    def _send_answers(self) -> None:
        """All that came in since the last time; a beginning goes before its end."""
        assert self._process is not None
        if self._began:
            self._process.tell_begun(self._began)
        if self._answers:
            self._process.tell_answered(self._answers)
        self._began, self._answers = [], []

    # ---- the end --------------------------------------------------------------------------------

    def _read_verdict(self) -> LoadGenVerdict:
        summary, detail = self._read(SUMMARY), self._read(DETAIL)
        if self.terms.mode is LoadMode.ACCURACY:
            log = self._read(ACCURACY)
            return read_accuracy(summary, detail, log, self._logged, self._scores)
        return read_performance(summary, detail)

    def _read(self, name: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""


def _broken_test(reason: str) -> RunFailed:
    return RunFailed(
        f"LoadGen's test broke off: {reason}",
        id="OR-LOAD-001",
        why="the answers so far are kept, but are no result",
        remedy="stderr.txt and mlperf_log_detail.txt in loadgen/ of the run's folder",
    )
