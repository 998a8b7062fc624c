"""``orchestrate resume``: go on with a run whose coordinator is gone, or that was stopped."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.job_options import JobOptions, pick_job
from orchestrator.cli.options.shared import pick_options
from orchestrator.cli.options.view_options import ViewOptions, view_options

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import Layout, RunFolder
    from orchestrator.adapters.sync.code_snapshot import Snapshot
    from orchestrator.core.model.request import RunRequest
    from orchestrator.core.verdict.result import Result

SHOWN_CHANGES = 10
MAX_FILES = 20_000
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--retry", is_flag=True, help="Begin another attempt also when the run failed.")
@click.option(
    "--accept-change",
    is_flag=True,
    help="Go on although the code or the configuration is not what the run began with.",
)
@view_options
def resume(run: str, retry: bool, accept_change: bool, **given: Any) -> int:
    """Go on with RUN (an id, a unique beginning of one, or last).

    After a crash of its coordinator nothing that was done is done again: ranks that still run are
    followed, and logs continue where they end here. Ranks that were stopped begin another attempt
    from their checkpoints, or at their beginning without any; what the earlier attempt left stays
    beside it. A load test cannot be continued: --retry begins it anew. A run that is over stays as
    it is. What was asked of the run holds on: its time limits, --wait, --fail-on.
    """
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.run_list import read_result
    from orchestrator.cli.past_runs import find_folder

    options = pick_options(ViewOptions, given)
    layout = Layout.from_environment(os.environ)
    folder = find_folder(layout, run)
    result = read_result(folder)
    if result is not None and not _is_resumable(result, retry=retry):
        return _tell_over(options, folder, result)
    if result is not None and result.begins_anew and not retry:
        raise _cannot_continue(folder)
    return _go_on(layout, folder, options, accept_change=accept_change, ended=result)


def _is_resumable(result: Result, *, retry: bool) -> bool:
    """A run that was stopped, or that says itself that it can be resumed."""
    from orchestrator.core.base.errors import ExitCode
    from orchestrator.core.verdict.result import Status

    if result.status is Status.STOPPED or result.exit_code is ExitCode.BUSY:
        return True
    return retry and result.status is Status.FAILED


def _cannot_continue(folder: RunFolder) -> Exception:
    from orchestrator.core.base.errors import UsageError

    return UsageError(
        f"run {folder.run_id} cannot be continued: a test cannot be resumed",
        id="resume.load-test",
        where=folder.path,
        why="another attempt asks for everything again; the result and the outputs are kept",
        remedy=f"orchestrate resume --retry {folder.run_id} begins it anew",
    )


def _tell_over(options: ViewOptions, folder: RunFolder, result: Result) -> int:
    from orchestrator.cli.open_view import open_view, show_result
    from orchestrator.core.verdict.result import Status

    click.echo(f"run {folder.run_id} is over: nothing to resume", err=True)
    if result.status is Status.FAILED:
        again = f"orchestrate resume {folder.run_id} --retry"
        whence = "begun anew" if result.begins_anew else "from its checkpoints"
        click.echo(f"another attempt, {whence}: {again}", err=True)
    return show_result(options, open_view(options, folder.run_id), result, folder.path)


def _go_on(
    layout: Layout,
    folder: RunFolder,
    options: ViewOptions,
    *,
    accept_change: bool,
    ended: Result | None,
) -> int:
    from orchestrator.cli.coordinate import coordinate_run
    from orchestrator.cli.open_view import resolve_follow
    from orchestrator.engine import run as engine
    from orchestrator.engine.oneshot.cleanup import read_request
    from orchestrator.engine.support.context import RunContext

    stored = read_request(folder)
    options = resolve_follow(options, own_code=stored.job.workload.own_code)
    request, snapshot = _load_again(layout, folder, stored)
    changes = changes_of(folder, stored, request, snapshot)
    if changes and not accept_change:
        raise _changed_error(folder, changes)
    context = RunContext(
        request=_with_secrets(stored, request), snapshot=snapshot, folder=folder, observers=[]
    )
    changed = request if changes else None

    async def drive(context: RunContext) -> Result:
        _require_same_end(folder, ended)
        if ended is not None:
            _set_result_aside(folder)
        return await engine.resume(context, again=ended is not None, changed=changed)

    return coordinate_run(layout, context, options, drive)


def save_request(
    folder: RunFolder, options: JobOptions, words: tuple[str, ...], snapshot: Snapshot
) -> None:
    """Keep what ``resume`` needs to ask for the same again, and to tell whether it is the same."""
    from orchestrator.adapters.store.atomic_files import write_json

    asked = {"cwd": str(Path.cwd()), "words": list(words), "options": asdict(options)}
    write_json(folder.invocation, asked)
    if snapshot.files <= MAX_FILES:
        folder.code.write_bytes(snapshot.packed_manifest)


def _load_again(
    layout: Layout, folder: RunFolder, stored: RunRequest
) -> tuple[RunRequest, Snapshot]:
    """What the same command line asks for today. Raises :class:`UsageError`."""
    from orchestrator.cli.load_request import load_request, require_load_generator, take_code

    asked = _read_invocation(folder)
    os.chdir(asked["cwd"])
    given: dict[str, Any] = asked["options"]
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    options = pick_job(given)
    loaded = load_request(options, tuple(asked["words"]), run_id=stored.run_id)
    require_load_generator(loaded)
    snapshot = take_code(layout, loaded.job)
    again = replace(
        loaded,
        code=snapshot.digest,
        commit=stored.commit,
        script_launcher=stored.script_launcher,
        fail_on_degraded=stored.fail_on_degraded,
        wait_s=stored.wait_s,
        budgets=stored.budgets,
        token=stored.token,
    )
    return again, snapshot


def _read_invocation(folder: RunFolder) -> dict[str, Any]:
    from orchestrator.core.base.errors import UsageError

    try:
        asked: dict[str, Any] = json.loads(folder.invocation.read_bytes())
        if not Path(asked["cwd"]).is_dir():
            raise ValueError(f"the directory {asked['cwd']} is gone")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"what run {folder.run_id} was asked for cannot be read again",
            id="resume.invocation",
            where=folder.invocation,
            why=str(error)[:300],
            remedy=f"orchestrate stop {folder.run_id} ends what is left of it",
        ) from error
    return asked


def changes_of(
    folder: RunFolder, stored: RunRequest, request: RunRequest, snapshot: Snapshot
) -> list[str]:
    """What is not as it was when the run began, one line each; at most so many. What the version
    that began it did not know yet has its default in ``stored``, and is no change. Another commit
    of the same files is none either.
    """
    from orchestrator.core.base.codec import to_json
    from orchestrator.core.base.difference import list_differences

    left_out = {"code": "", "commit": ""}
    before, now = to_json(stored), to_json(request)
    changes = list_differences({**before, **left_out}, {**now, **left_out})
    if stored.code != request.code:
        changes = chain(_changed_files(folder, snapshot), changes)
    return list(islice(changes, SHOWN_CHANGES + 1))


def _changed_files(folder: RunFolder, snapshot: Snapshot) -> Iterator[str]:
    from orchestrator.core.base.manifest import InvalidManifest, Manifest, compare_manifests

    try:
        packed = folder.code.read_bytes()
        data = zlib.decompressobj().decompress(packed, MAX_MANIFEST_BYTES)
        difference = compare_manifests(Manifest.decode(data), snapshot.manifest)
    except (OSError, zlib.error, InvalidManifest):
        yield "the code changed"
        return
    yield from (f"{path} is new" for path in difference.added)
    yield from (f"{path} changed" for path in difference.changed)
    yield from (f"{path} is gone" for path in difference.removed)


def _changed_error(folder: RunFolder, changes: list[str]) -> Exception:
    from orchestrator.core.base.errors import UsageError

    shown = changes[:SHOWN_CHANGES] + (["..."] if len(changes) > SHOWN_CHANGES else [])
    return UsageError(
        f"run {folder.run_id} began with other code or configuration",
        id="resume.changed",
        where=folder.request,
        why="; ".join(shown),
        remedy=f"put it back, or: orchestrate resume {folder.run_id} --accept-change "
        "(ranks that still run keep what they began with; another attempt takes the new)",
    )


def _with_secrets(stored: RunRequest, loaded: RunRequest) -> RunRequest:
    """The stored request with the secrets, which no file holds, as they are today."""
    from orchestrator.core.base.command import MASK, Secret, Text

    def revealed(kept: dict[str, Text], now: dict[str, Text]) -> dict[str, Text]:
        return {
            name: now[name] if value == MASK and isinstance(now.get(name), Secret) else value
            for name, value in kept.items()
        }

    today = {spec.name: dict(spec.env) for spec in loaded.cluster.nodes}
    nodes = tuple(
        replace(spec, env=revealed(dict(spec.env), today.get(spec.name, {})))
        for spec in stored.cluster.nodes
    )
    cluster = replace(stored.cluster, nodes=nodes)
    return replace(stored, cluster=cluster, env=revealed(dict(stored.env), dict(loaded.env)))


def _require_same_end(folder: RunFolder, ended: Result | None) -> None:
    """What was decided before the run was ours alone must still be so. Raises ``BusyError``."""
    from orchestrator.adapters.store.run_list import read_result
    from orchestrator.core.base.errors import BusyError

    if read_result(folder) != ended:
        raise BusyError(
            f"another coordinator took over run {folder.run_id} meanwhile, and ended it",
            id="OR-STORE-019",
            where=folder.path,
            remedy=f"orchestrate show {folder.run_id}",
        )


def _set_result_aside(folder: RunFolder) -> None:
    """The run is not over any more; its last verdict stays readable beside the next one."""
    kept = sum(1 for _ in folder.path.glob("result.*.json")) + 1
    folder.result.rename(folder.path / f"result.{kept}.json")
