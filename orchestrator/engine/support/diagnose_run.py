"""The first cause of a run's failure, from its folder and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from orchestrator.adapters.diagnosis.log_reader import ENDS, Gathering, Window
from orchestrator.adapters.diagnosis.log_sources import source_of
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Diagnosis,
    End,
    Findings,
    LogRole,
    LogSource,
)
from orchestrator.core.diagnosis.facts_as_clues import from_facts
from orchestrator.core.diagnosis.first_cause import find_first_cause
from orchestrator.core.diagnosis.rules import BY_ID
from orchestrator.core.diagnosis.verdict import telling_lines
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.events import RankExited
from orchestrator.core.run.node_state import Ending
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.failure_cause import log_name
from orchestrator.core.verdict.result import FailureResult, Result, Verdict
from orchestrator.core.verdict.verdict import missed_gate_text

# Failures of which the ranks' own logs know more than the verdict, as they do of those that ranks
# name themselves. Ranks that hung were looked at.
_EXPLAINED = frozenset({"OR-RUN-001", "OR-TIME-001"})
# So that thousands of ranks do not keep the result waiting.
MAX_BYTES = 32 << 20


def with_diagnosis(result: Result, folder: RunFolder, state: RunState) -> Result:
    """``result`` with what the collected logs say of its failure, if they say it clearly."""
    failure = result.failure
    if failure is None or not _is_explained(failure, state.request):
        return result
    try:
        found = diagnose_soon(folder, state)
    except OSError:
        return result
    if found is None or found.confidence is Confidence.POSSIBLE:
        return result
    return replace(result, failure=replace(failure, diagnosis=found))


def diagnose_soon(folder: RunFolder, state: RunState) -> Diagnosis | None:
    """The first cause by the ends of the logs, which are read up to a bound. Raises ``OSError``."""
    share = _share_window(ENDS, MAX_BYTES // max(1, len(folder.log_files())))
    return diagnose_run(folder, state, share).diagnosis


def _is_explained(failure: FailureResult, request: RunRequest) -> bool:
    return failure.id in _EXPLAINED or failure.id in request.job.workload.failures


def verdict_findings(result: Result | None, request: RunRequest) -> Findings | None:
    """What the run itself knows for sure: how it hung, say, or that nothing failed. None where the
    logs know more.
    """
    if result is None:
        return None
    if result.failure is None:
        return Findings(diagnosis=None, nothing_failed=True)
    if _is_explained(result.failure, request):
        return None
    return Findings(diagnosis=_diagnosis_verdict(result.failure, result))


def with_verdict(findings: Findings, result: Result | None) -> Findings:
    """``findings`` in logs, beside what the run itself found; and this instead of a process that
    was only told to end: of the rank that ended first the run knows more.
    """
    found = findings.diagnosis
    if found is None or result is None or result.failure is None:
        return findings
    rule = BY_ID.get(found.id)
    if rule is not None and rule.role in {LogRole.VICTIM, LogRole.STOPPED}:
        return replace(findings, diagnosis=_diagnosis_verdict(result.failure, result))
    besides = (*found.besides, *_also_found(result, found.node, found.cause))
    return replace(findings, diagnosis=replace(found, besides=besides))


def _also_found(result: Result, node: str | None, cause: str) -> Iterator[str]:
    """Nodes that were lost and gates that were missed, but for the diagnosed ``node`` and what the
    ``cause`` says already: one of them often explains the other.
    """
    for each in result.nodes:
        if each.state == "lost" and each.name != node:
            yield f"node {each.name} was lost: {each.reason}"
    for name, metric in result.metrics.items():
        missed = metric.verdict in {Verdict.FAIL, Verdict.INVALID}
        if missed and (text := missed_gate_text(name, metric)) != cause:
            yield text


def _diagnosis_verdict(failure: FailureResult, result: Result) -> Diagnosis:
    return Diagnosis(
        id=failure.id,
        title="What the run itself found",
        confidence=Confidence.CERTAIN,
        cause=failure.cause,
        remedy=failure.remedy,
        advice=Advice.GIVE_UP,
        node=failure.node,
        rank=failure.rank,
        besides=tuple(_also_found(result, failure.node, failure.cause)),
    )


def diagnose_run(
    folder: RunFolder, state: RunState, window: Window, gathering: Gathering | None = None
) -> Findings:
    """What the logs of the run's last attempt, its endings and its nodes' facts say together.

    Logs that cannot be read are left out. ``gathering`` may hold what other logs told. Raises
    ``OSError`` when the folder cannot be read.
    """
    gathering = gathering or Gathering()
    for log in folder.log_files():
        if log.attempt != state.attempt or log.file.endswith(".jsonl"):
            continue
        path = folder.node_logs(log.node, log.attempt) / log.file
        source = source_of(path.relative_to(folder.path).as_posix())
        with suppress(OSError):
            gathering.read_file(path, replace(source, node=log.node), window)
    return find_first_cause(
        [*gathering.clues, *from_facts(state.planned_facts())],
        remarks=gathering.remarks,
        ends=[_make_end(ending) for ending in state.failures],
        sources=gathering.sources,
        telling=telling_lines(gathering.tails),
    )


def _share_window(window: Window, most: int) -> Window:
    """``window`` for a log that may take no more than ``most`` bytes."""
    tail = min(window.tail, most * 3 // 4)
    return Window(head=min(window.head, most // 4), tail=tail, counted=window.counted)


def _make_end(ending: Ending) -> End:
    rank = ending.rank if isinstance(ending, RankExited) else None
    source = LogSource(
        name=f"logs/{ending.node}/{log_name(ending)}.err", node=ending.node, rank=rank
    )
    return End(source=source, outcome=ending.outcome)
