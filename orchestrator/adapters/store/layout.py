"""The one place that knows where the coordinator keeps its files.

``$ORCHESTRATE_HOME`` (default ``~/.orchestrate``)::

    history.sqlite (also -wal, -shm)
    page.log
    cache/snapshots/ cache/fabric/ cache/inventories/ cache/validated/ cache/costs/ cache/ssh/
    examinations/
    suites/<run-id>/                           adapters/suite/suite_folder.py: runs of suites
    runs/<run-id>/
        request.json invocation.json plan.json journal.jsonl metrics.jsonl progress.json
        coordinator.json coordinator.lock coordinator.log
        logs/<node>/rank-<R>.out|err  logs/<node>/launcher.out|err
        logs/<node>/attempt-<N>/...            of attempts after the first
        artifacts/<node>/...                   of the last attempt
        artifacts/<node>.attempt-<N>/...       of earlier ones
        left-out/<node>.json                   outputs that did not come, and why
        hang/<node>/...                        what was found of ranks that made no progress
        exchange/<node>/attempt-<N>/exchange-<R>.jsonl   what ranks told us that they work on
        captures/<kind>/SUMMARY.md             what was captured of GPUs; its data are artifacts
        work/...                               what is kept of leases or rounds for another attempt
        prediction.json                        what it was predicted to take, before its launch
        result.json report.md report.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.store.atomic_files import make_private_dir

# Patterns; commands that need none of them do not compile them.
_RUN_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_LOG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(out|err|jsonl)"
_EXCHANGE = r"exchange-\d{1,7}\.jsonl"
_ATTEMPT = r"attempt-([1-9]\d{0,4})"


class LogFile(NamedTuple):
    """One stream of one attempt, such as ``rank-3.err``."""

    attempt: int
    node: str
    file: str


def valid_run_id(text: str) -> bool:
    """Whether ``text`` is 1..128 of letters, digits, ``. _ -``: hence also a safe file name."""
    return re.fullmatch(_RUN_ID, text) is not None


def _component(name: str) -> str:
    """``name`` if it is one safe path component. Raises ``ValueError``."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"not a file name: {name!r}")
    return name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run. Nothing here touches the disk, except ``create`` and ``log_files``."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def invocation(self) -> Path:
        """The words of the command that began the run."""
        return self.path / "invocation.json"

    @property
    def code(self) -> Path:
        """The packed manifest of the code that the run began with."""
        return self.path / "code.manifest"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def prediction(self) -> Path:
        """What the run was predicted to take, written when its plan was made."""
        return self.path / "prediction.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        """How far each rank is, while the run lasts."""
        return self.path / "progress.json"

    @property
    def coordinator(self) -> Path:
        return self.path / "coordinator.json"

    @property
    def coordinator_lock(self) -> Path:
        """Locked by whoever coordinates the run, for as long as that process lives."""
        return self.path / "coordinator.lock"

    @property
    def coordinator_log(self) -> Path:
        """What a coordinator in the background would have shown."""
        return self.path / "coordinator.log"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def report_markdown(self) -> Path:
        return self.path / "report.md"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def captures(self) -> Path:
        """Summaries of what was captured beside the ranks."""
        return self.path / "captures"

    def node_logs(self, node: str, attempt: int = 1) -> Path:
        """Where ``node``'s log files are. Raises ``ValueError`` for an unsafe name."""
        first = self.logs / _component(node)
        return first if attempt == 1 else first / f"attempt-{attempt}"

    def log(self, node: str, file: str, attempt: int = 1) -> Path:
        """One log file, such as ``rank-3.err``. Raises ``ValueError`` for other names."""
        if not re.fullmatch(_LOG, file):
            raise ValueError(f"not the name of a log: {file[:80]!r}")
        return self.node_logs(node, attempt) / file

    def node_artifacts(self, node: str, replaced: int | None = None) -> Path:
        """Where ``node``'s artifacts are: those of the last attempt, or of the one that it
        ``replaced``. Raises ``ValueError`` for an unsafe name.
        """
        suffix = "" if replaced is None else f".attempt-{replaced}"
        return self.artifacts / (_component(node) + suffix)

    def outputs_called(self, file: str) -> list[Path]:
        """``file`` of each node that has it, in the last attempt, in the order of their names."""
        try:
            found = sorted(self.artifacts.glob(f"*/{file}"))
        except OSError:
            return []
        return [path for path in found if ".attempt-" not in path.parent.name]

    def left_out(self, node: str) -> Path:
        """Which outputs of ``node`` did not come. Raises ``ValueError`` for an unsafe name."""
        return self.path / "left-out" / f"{_component(node)}.json"

    def node_hang(self, node: str, attempt: int = 1) -> Path:
        """Evidence on ranks of ``node``. Raises ``ValueError`` for an unsafe name."""
        first = self.path / "hang" / _component(node)
        return first if attempt == 1 else first / f"attempt-{attempt}"

    @property
    def work(self) -> Path:
        """What the coordinator itself keeps of leased samples or averaged rounds."""
        return self.path / "work"

    def loadgen(self, attempt: int) -> Path:
        """What LoadGen itself wrote of its test in an attempt."""
        first = self.path / "loadgen"
        return first if attempt == 1 else first / f"attempt-{attempt}"

    @property
    def exchanges(self) -> Path:
        return self.path / "exchange"

    def node_exchange(self, node: str, attempt: int = 1) -> Path:
        """What ranks of ``node`` told us. Raises ``ValueError`` for an unsafe name."""
        return self.exchanges / _component(node) / f"attempt-{attempt}"

    def exchange(self, node: str, file: str, attempt: int = 1) -> Path:
        """One rank's stream, ``exchange-3.jsonl``. Raises ``ValueError`` for other names."""
        if not re.fullmatch(_EXCHANGE, file):
            raise ValueError(f"not the name of an exchange: {file[:80]!r}")
        return self.node_exchange(node, attempt) / file

    def log_files(self) -> list[LogFile]:
        """Every log that exists now, sorted by attempt."""
        if not self.logs.is_dir():
            return []
        found: list[LogFile] = []
        for folder in (path for path in self.logs.iterdir() if path.is_dir()):
            for path in folder.iterdir():
                attempt = re.fullmatch(_ATTEMPT, path.name)
                if path.is_file():
                    found.append(LogFile(1, folder.name, path.name))
                elif attempt is not None:
                    number = int(attempt.group(1))
                    files = (file.name for file in path.iterdir() if file.is_file())
                    found += [LogFile(number, folder.name, file) for file in files]
        return sorted(found)

    def create(self) -> None:
        """Make the folder. Raises ``FileExistsError`` when a run of this name exists."""
        make_private_dir(self.path.parent)
        self.path.mkdir(mode=0o700)
        self.logs.mkdir(mode=0o700)
        self.artifacts.mkdir(mode=0o700)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one home directory."""

    home: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Layout:
        """``ORCHESTRATE_HOME`` if set and not empty, else ``~/.orchestrate``."""
        named = environment.get("ORCHESTRATE_HOME")
        return cls(Path(named).expanduser().absolute() if named else Path.home() / ".orchestrate")

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def suites(self) -> Path:
        """Runs of suites; those of their steps are below ``runs``."""
        return self.home / "suites"

    @property
    def history(self) -> Path:
        return self.home / "history.sqlite"

    @property
    def snapshots(self) -> Path:
        """What is remembered of trees that were hashed before."""
        return self.home / "cache" / "snapshots"

    @property
    def page_log(self) -> Path:
        """What commands print that the web page starts."""
        return self.home / "page.log"

    @property
    def examinations(self) -> Path:
        """What earlier examinations found, one file a cluster."""
        return self.home / "examinations"

    @property
    def fabrics(self) -> Path:
        """What is remembered of fabrics that proved good."""
        return self.home / "cache" / "fabric"

    @property
    def inventories(self) -> Path:
        """Inventories as they were validated."""
        return self.home / "cache" / "inventories"

    @property
    def validated(self) -> Path:
        """Workloads and price lists as they were validated."""
        return self.home / "cache" / "validated"

    @property
    def ssh_answers(self) -> Path:
        """What ``ssh`` said its configuration comes to."""
        return self.home / "cache" / "ssh"

    @property
    def cost_tables(self) -> Path:
        """The cost model's tables as they were validated."""
        return self.home / "cache" / "costs"

    def run(self, run_id: str) -> RunFolder:
        """The folder of ``run_id``, existing or not. Raises ``ValueError`` for an invalid id."""
        if not valid_run_id(run_id):
            raise ValueError(f"not a run id: {run_id!r}")
        return RunFolder(self.runs / run_id)

    def run_ids(self) -> list[str]:
        """The ids of all runs on disk, sorted; generated ids sort by time."""
        if not self.runs.is_dir():
            return []
        return sorted(p.name for p in self.runs.iterdir() if p.is_dir() and valid_run_id(p.name))
