"""The last screen of a failed run: what failed first, the evidence, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.base.nodeset import fold_nodeset, is_name
from orchestrator.core.verdict.result import FailureResult, Result, Status
from orchestrator.parsing.replies.display_text import LineDecoder, clean_line
from orchestrator.view.terminal.terminal import BOLD, RED, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun

MAX_LINES = 15
EVIDENCE_LINES = 4
TAIL_BYTES = 16 * 1024
WIDTH = 240
# Commands in it are to be pasted: what is cut off does something else.
NEXT_WIDTH = 1200


def failure_screen(result: Result, folder: Path | None, *, color: bool = False) -> list[str]:
    """At most 15 lines; none for a result without failure. ``folder`` holds the run's logs."""
    failure = result.failure
    if failure is None:
        return []
    # A run that was stopped did not fail; this one nobody waited for.
    word = "LEFT" if result.status is Status.STOPPED else result.status.value.upper()
    head = f"{word}: {brief_text(failure.cause, WIDTH)} ({brief_text(failure.id, 40)})"
    log = _log_path(failure, folder)
    lines = [
        paint_text(head, RED + BOLD, color=color),
        *([f"  {brief_text(result.notice, WIDTH)}"] if result.notice else []),
        *_diagnosis(failure),
        *_evidence(failure, log),
        *_bystanders(result, failure),
        *(f"  warning: {brief_text(warning, WIDTH)}" for warning in result.warnings[:2]),
    ]
    # What to do next must not be pushed out by what went wrong.
    last = list(_next(result, failure, log, folder))
    return [*lines[: MAX_LINES - len(last)], *last]


def _diagnosis(failure: FailureResult) -> Iterator[str]:
    if (found := failure.diagnosis) is not None:
        place = f"; {brief_text(found.evidence[0].place, 120)}" if found.evidence else ""
        sure = f"{brief_text(found.id, 40)}, {found.confidence.value}{place}"
        follow = "".join(f"; {brief_text(what, 80)}" for what in found.consequences[:1])
        yield f"  diagnosis: {brief_text(found.cause, WIDTH)}{follow} ({sure})"
        yield f"  remedy: {brief_text(found.remedy, WIDTH)}"


def _evidence(failure: FailureResult, log: Path | None) -> Iterator[str]:
    # Ranks that are asked for evidence may write of it: what counts was written before.
    lines = tail_lines(log, EVIDENCE_LINES) if log is not None and not failure.evidence else []
    for line in lines or ([failure.last_line] if failure.last_line else []):
        yield f"  | {brief_text(line, WIDTH)}"


def _bystanders(result: Result, failure: FailureResult) -> Iterator[str]:
    if failure.others:
        verb = "was" if len(failure.others) == 1 else "were"
        which = "rank" if failure.rank is None else "other rank"
        yield f"  {count_noun(len(failure.others), which)} {verb} stopped by orchestrate"
    by_state: dict[tuple[str, str], list[str]] = {}
    for node in result.nodes:
        if node.state in {"excluded", "lost", "dirty"} and node.name != failure.node:
            by_state.setdefault((node.state, node.reason), []).append(node.name)
    for (state, reason), names in list(by_state.items())[:3]:
        yield f"  {state}: {brief_text(_folded(names), 80)}: {brief_text(reason, WIDTH)}"


def _folded(names: list[str]) -> str:
    return fold_nodeset(names) if all(map(is_name, names)) else ", ".join(names)


def _next(
    result: Result, failure: FailureResult, log: Path | None, folder: Path | None
) -> Iterator[str]:
    if failure.remedy:
        yield f"  next: {brief_text(failure.remedy, NEXT_WIDTH)}"
    logs = f"orchestrate logs {result.run_id}"
    if result.used and result.status is not Status.STOPPED and logs not in failure.remedy:
        yield f"  more: {logs}"
    if log is not None:
        yield f"  log:  {brief_text(str(log), 400)}"
    if folder is not None and failure.evidence and ".." not in Path(failure.evidence).parts:
        yield f"  evidence: {brief_text(str(folder / failure.evidence), 400)}"


def _log_path(failure: FailureResult, folder: Path | None) -> Path | None:
    """The first failure's log: the stream that its last line stands in, else standard error."""
    if folder is None or not failure.log or ".." in Path(failure.log).parts:
        return None
    path = folder / failure.log
    other = path.with_suffix(".out")
    if failure.last_line and not _ends_with(path, failure.last_line):
        return other if _ends_with(other, failure.last_line) else path
    return other if _is_empty(path) and not _is_empty(other) else path


def _ends_with(path: Path, line: str) -> bool:
    return any(line in shown for shown in tail_lines(path, EVIDENCE_LINES))


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return True


def tail_lines(path: Path, count: int) -> list[str]:
    """The last ``count`` lines of a log that are not blank, harmless; none if there is no file."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL_BYTES)
            file.seek(start)
            content = file.read(TAIL_BYTES)
    except OSError:
        return []
    decoder = LineDecoder()
    lines = [*decoder.feed(content), *decoder.finish()]
    return [clean_line(line) for line in lines[1 if start else 0 :] if line.strip()][-count:]
