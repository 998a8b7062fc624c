"""What finished runs left in their outputs: requests of load tests, loads of experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.adapters.monitoring.expert_sources import find_telemetry, read_expert_file
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.monitoring.expert_load import expert_samples
from orchestrator.core.monitoring.metric import Sample
from orchestrator.core.monitoring.request_latencies import RequestLatencies
from orchestrator.core.monitoring.run_samples import RunView
from orchestrator.parsing.replies.load.request_times import NoRequest, parse_request_times

REQUESTS = "requests.jsonl"
PORTION_BYTES = 4 << 20  # of one file in one look; the histograms grow from scrape to scrape


class OutputSamples:
    """Outputs come when a run ends, and do not change: each file is read once."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._runs: dict[str, _Outputs] = {}

    def read(self, runs: Sequence[RunView]) -> Iterator[Sample]:
        """Of those runs that ended."""
        ended = [run.run_id for run in runs if not run.is_live]
        self._runs = {
            run_id: self._runs.get(run_id) or _Outputs(self._layout.run(run_id)) for run_id in ended
        }
        for outputs in self._runs.values():
            yield from outputs.read()


class _Outputs:
    def __init__(self, folder: RunFolder) -> None:
        self._run_id = folder.run_id
        self._latencies = RequestLatencies()
        self._files = [_RequestFile(path) for path in folder.outputs_called(REQUESTS)]
        self._experts = list(_expert_samples(folder))

    def read(self) -> Iterator[Sample]:
        for file in self._files:
            file.read(self._latencies)
        if self._files:
            yield from self._latencies.samples(self._run_id)
        yield from self._experts


class _RequestFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, into: RequestLatencies) -> None:
        """Complete lines of the next portion; a file that cannot be read has none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                portion = file.read(PORTION_BYTES)
        except OSError:
            return
        complete = portion[: portion.rfind(b"\n") + 1]
        # A line longer than a portion is no record: it is passed over.
        self._offset += len(complete) or (len(portion) if len(portion) == PORTION_BYTES else 0)
        for line in complete.splitlines():
            with suppress(NoRequest):
                into.add(parse_request_times(line))


def _expert_samples(folder: RunFolder) -> Iterator[Sample]:
    path = find_telemetry(folder)
    if path is not None:
        with suppress(OrchestrateError):
            yield from expert_samples(folder.run_id, read_expert_file(path))
