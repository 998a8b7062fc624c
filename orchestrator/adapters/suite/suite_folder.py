"""Runs of suites on disk: ``$ORCHESTRATE_HOME/suites/<run-id>/``."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.adapters.record_log import append_line, holding, read_log
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic, write_json
from orchestrator.adapters.store.layout import Layout, valid_run_id
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean_run
from orchestrator.core.suite.step_records import StepRecord, StepRecordKind

LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOrder:
    """What a run of a suite was asked to do. ``source``: the file as errors call it, ``named`` as
    its user did, from anywhere; ``began`` in seconds since the epoch; ``folder``: where paths of
    workloads are relative to. ``skipped`` and ``blocked``: the steps that do not run, because their
    user or the nodes do not let them, with the reasons.
    """

    suite: str
    source: str
    cluster: str
    named: str = ""
    nodes: str = ""
    folder: str = "/"
    began: float = 0.0
    skipped: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)

    def resume_command(self, run_id: str) -> str:
        """What continues the run of this id."""
        words = (self.named or self.suite, "--cluster", self.cluster, "--run-id", run_id)
        return f"orchestrate suite run --resume {shlex.join(words)}"


@dataclass(frozen=True, slots=True)
class SuiteFolder:
    """The files of one run of a suite."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def order(self) -> Path:
        return self.path / "order.json"

    @property
    def suite(self) -> Path:
        """The suite's file as it was when the run began: what is resumed is this."""
        return self.path / "suite.yaml"

    @property
    def steps(self) -> Path:
        """One JSON line for everything that became of a step."""
        return self.path / "steps.jsonl"

    @property
    def environment(self) -> Path:
        """What the nodes were before the first step: driver, CUDA, packages, topology."""
        return self.path / "environment.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def summary_markdown(self) -> Path:
        return self.path / "summary.md"

    @property
    def summary_html(self) -> Path:
        return self.path / "summary.html"

    @property
    def archive(self) -> Path:
        return self.path / f"{self.run_id}.tar.gz"

    @property
    def lock(self) -> Path:
        """Locked while a process works on the suite."""
        return self.path / "suite.lock"

    def output(self, step: str) -> Path:
        """What the run of a step printed."""
        return self.path / "output" / f"{step}.log"

    def step_run_id(self, step: str) -> str:
        return f"{self.run_id}-{step}"


def suite_folder(layout: Layout, run_id: str) -> SuiteFolder:
    """The folder of a suite's run, existing or not. Raises :class:`UsageError`."""
    if not valid_run_id(run_id) or len(run_id) > 80:
        what, remedy = f"not a run id: {run_id[:90]!r}", "use letters, digits, '.', '_' and '-'"
        raise UsageError(what, id="suite.run-id", remedy=remedy)
    return SuiteFolder(layout.suites / run_id)


def new_suite_folder(layout: Layout, run_id: str) -> SuiteFolder:
    """The folder of a run that is to be made. Raises :class:`UsageError` where there is one."""
    folder = suite_folder(layout, run_id)
    if folder.path.exists():
        what, remedy = f"a suite's run is called {run_id}", "take another id, or --resume"
        raise UsageError(what, id="suite.run-id", where=folder.path, remedy=remedy)
    return folder


def create_suite_run(
    folder: SuiteFolder, order: SuiteOrder, suite: bytes, environment: Mapping[str, object]
) -> None:
    """The folder with what the run is asked to do: all of it or nothing. Raises ``OSError``, also
    where there is one of this name.
    """
    staged = SuiteFolder(folder.path.with_name(f".new-{os.getpid()}-{folder.run_id}"))
    make_private_dir(staged.path / "output")
    write_atomic(staged.suite, suite)
    write_json(staged.environment, environment)
    write_json(staged.order, asdict(order))
    staged.path.rename(folder.path)


def suite_run_ids(layout: Layout) -> list[str]:
    """The runs of suites, oldest first."""
    if not layout.suites.is_dir():
        return []
    ids = (path.parent.name for path in layout.suites.glob("*/order.json"))
    return sorted(filter(valid_run_id, ids), key=lambda run_id: (_began(layout, run_id), run_id))


def find_suite_run(layout: Layout, text: str) -> SuiteFolder:
    """The run that ``text`` names: an id, an unambiguous beginning of one, or ``last``.

    Raises :class:`UsageError`.
    """
    ids = suite_run_ids(layout)
    matches = ids[-1:] if text == LAST else [run_id for run_id in ids if run_id == text]
    matches = matches or [run_id for run_id in ids if text and run_id.startswith(text)]
    if len(matches) == 1:
        return SuiteFolder(layout.suites / matches[0])
    what = f"{len(matches)} runs of suites begin with {text!r}" if matches else ""
    what = what or (f"no suite's run is called {text!r}" if ids else "no suite was run yet")
    remedy = did_you_mean_run(text, ids[::-1]) if ids else "orchestrate suite run --help"
    raise UsageError(what, id="suite.run-id", where=layout.suites, remedy=remedy)


def suite_runs_of(layout: Layout, suite: str, cluster: str) -> Iterator[SuiteFolder]:
    """The runs of a suite on a cluster, latest first; both as orders name them."""
    for run_id in reversed(suite_run_ids(layout)):
        folder = SuiteFolder(layout.suites / run_id)
        order = read_order(folder)
        if (order.suite, order.cluster) == (suite, cluster):
            yield folder


def is_open(folder: SuiteFolder) -> bool:
    """Whether ``--resume`` has something to do: steps or the archive are missing, and no process
    works on them.
    """
    if (read_suite_result(folder) or {}).get("archive"):
        return False
    with holding(folder.lock) as alone:
        return alone


def read_order(folder: SuiteFolder) -> SuiteOrder:
    """What the run was asked to do. Raises :class:`UsageError` where that is damaged."""
    try:
        return SuiteOrder(**json.loads(folder.order.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        what = "what this suite was asked to do cannot be read"
        remedy = "begin a new run of the suite"
        raise UsageError(what, id="suite.order", where=folder.order, remedy=remedy) from error


def append_step(folder: SuiteFolder, record: StepRecord) -> None:
    """Add one line, on disk before this returns. Raises ``OSError``."""
    append_line(folder.steps, asdict(record))


def read_steps(folder: SuiteFolder) -> list[StepRecord]:
    """The log of the suite, oldest first; lines that a crash tore are left out."""
    return read_log(
        folder.steps, lambda data: StepRecord(**{**data, "kind": StepRecordKind(data["kind"])})
    )


def read_suite_result(folder: SuiteFolder) -> Mapping[str, Any] | None:
    """The result of a suite that is over; None while there is none."""
    try:
        data = json.loads(folder.result.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _began(layout: Layout, run_id: str) -> float:
    try:
        return float(json.loads((layout.suites / run_id / "order.json").read_bytes())["began"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0
