"""``orchestrate diagnose``: the first cause in anybody's logs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import color_option, json_option, use_color

if TYPE_CHECKING:
    from orchestrator.adapters.diagnosis.log_reader import Gathering
    from orchestrator.adapters.store.layout import RunFolder
    from orchestrator.core.diagnosis.diagnosis_model import Findings
    from orchestrator.core.verdict.result import Result


@click.command()
@click.argument("targets", metavar="FILE|FOLDER|RUN...", nargs=-1, required=True)
@color_option
@json_option
def diagnose(targets: tuple[str, ...], color: str, as_json: bool) -> int:
    """Name the first cause in logs: files, folders of them, - for standard input, or a RUN.

    Ranks and nodes are told apart by file names (rank3.log, attempt_0/3/stderr.log) and by prefixes
    of lines ([rank3]:, 3:, node: of pdsh, (Worker pid=7, ip=ADDRESS), journald, compose). Exits 0
    when a cause was named or nothing failed, 1 when no known failure pattern matched.
    """
    from orchestrator.adapters.diagnosis.log_reader import Gathering
    from orchestrator.adapters.store.run_list import read_result
    from orchestrator.cli.output import plain_data, print_json
    from orchestrator.view.result.diagnosis_text import findings_text, read_text

    gathering = Gathering()
    run = _gather_targets(targets, gathering)
    result = read_result(run) if run is not None else None
    findings = _judge_logs(gathering) if run is None else _diagnose_run(run, result, gathering)
    if as_json:
        read = {"logs": len(gathering.sources), "lines": gathering.lines}
        print_json("diagnosis", {**plain_data(findings), **read, "unread_bytes": gathering.skipped})
    elif findings.nothing_failed and result is not None:
        click.echo(_nothing_failed(result))
    else:
        what_was_read = read_text([source.name for source in gathering.sources], gathering.lines)
        click.echo("\n".join(findings_text(findings, what_was_read, color=use_color(color))))
        for name, count in gathering.skipped.items():
            click.echo(f"note: {count} bytes in the middle of {name} were not read", err=True)
    return 0 if findings.diagnosis or findings.nothing_failed else 1


def _gather_targets(targets: tuple[str, ...], gathering: Gathering) -> RunFolder | None:
    """All targets together are one job; the run among them. Raises :class:`UsageError`."""
    from orchestrator.core.base.errors import UsageError

    runs = [run for target in targets if (run := _read_target(target, gathering)) is not None]
    if len(runs) > 1:
        raise UsageError("one run at a time", id="diagnose.runs", remedy="name one of them")
    return runs[0] if runs else None


def _judge_logs(gathering: Gathering) -> Findings:
    from orchestrator.core.diagnosis.first_cause import find_first_cause
    from orchestrator.core.diagnosis.named_cause import telling_lines

    return find_first_cause(
        gathering.clues,
        remarks=gathering.remarks,
        sources=gathering.sources,
        telling=telling_lines(gathering.tails),
        tails=gathering.tails,
    )


def _read_target(target: str, gathering: Gathering) -> RunFolder | None:
    """Gather what ``target`` holds; a run is returned instead."""
    from orchestrator.adapters.diagnosis.log_sources import log_sources
    from orchestrator.adapters.store.layout import RunFolder
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.diagnosis.diagnosis_model import LogSource

    path = Path(target)
    if target == "-":
        gathering.read_stream(sys.stdin.buffer, LogSource(name="standard input"))
    elif (path / "journal.jsonl").is_file():
        return RunFolder(path)
    elif path.exists():
        try:
            for log in log_sources(path, target):
                gathering.read_file(log.path, log.source)
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError("cannot be read", id="diagnose.file", where=path, why=why) from error
    else:
        return _find_run(target)
    return None


def _find_run(target: str) -> RunFolder:
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.run_list import find_run
    from orchestrator.core.base.errors import UsageError

    try:
        return find_run(Layout.from_environment(os.environ), target)
    except UsageError as error:
        what = f"{target!r} is neither a file nor a run: {error.what}"
        raise UsageError(what, id="diagnose.target", remedy=error.remedy) from error


def _diagnose_run(folder: RunFolder, result: Result | None, gathering: Gathering) -> Findings:
    """With what its journal knows of endings and nodes."""
    from orchestrator.adapters.diagnosis.log_reader import WHOLE
    from orchestrator.engine.oneshot.cleanup import read_request
    from orchestrator.engine.support.diagnose_run import (
        diagnose_run,
        verdict_findings,
        with_verdict,
    )
    from orchestrator.engine.support.replay import replay_journal

    request = read_request(folder)
    if (known := verdict_findings(result, request)) is not None:
        return known
    state = replay_journal(folder, request).state
    return with_verdict(diagnose_run(folder, state, WHOLE, gathering), result)


def _nothing_failed(result: Result) -> str:
    from orchestrator.core.verdict.result import Status

    what = f"run {result.run_id} {result.status.value}: nothing failed"
    if result.status is Status.DEGRADED:
        what += f" for good; orchestrate show {result.run_id} lists what did on the way"
    return what
