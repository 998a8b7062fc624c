"""The way back: a script that runs the smoke step on the old set-up, and what it came to."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.migration.migration_folder import MigrationFolder
from orchestrator.adapters.run_process import run_process
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.run_record import RunRecord, key_differences
from orchestrator.core.migration.evidence import WayBack
from orchestrator.core.verdict.result import Status

INVENTORY, SUITE, PLAYBOOK = "inventory.yaml", "suite.yaml", "playbook.yaml"
LIMIT_S = 3600.0

_SCRIPT = """#!/bin/sh
# Way back of migration {name}: runs the smoke step {smoke} with the inventory, requirements and
# settings that the old bundle pinned. Exits as the run does.
#
#     sh way-back.sh [RUN-ID]
#
# ORCHESTRATE: the command, if it is not orchestrate. PROJECT: the folder that workloads are found
# from, if it is not the one that the bundle was captured in.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
(cd -- "$here/restore" && sha256sum --check --quiet SHA256SUMS)
cd -- "${{PROJECT:-{project}}}"
# ORCHESTRATE may be several words.
exec ${{ORCHESTRATE:-orchestrate}} run --cluster "$here/restore/{inventory}" {words} \\
    --run-id "${{1:-way-back-$(date +%Y%m%d-%H%M%S)-$$}}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBackOrder:
    """What the script does. ``words`` are those of the smoke step's run, without the cluster;
    ``project`` is the folder that it was begun in.
    """

    smoke: str
    project: str
    words: Sequence[str]


def write_way_back(
    folder: MigrationFolder, order: WayBackOrder, restore: Mapping[str, bytes]
) -> None:
    """The script, and ``restore/`` with the digests of what is in it. Raises ``OSError``, and
    :class:`UsageError` for a bundle without an inventory.
    """
    if INVENTORY not in restore:
        what, remedy = "the old bundle pins no inventory", "capture it again"
        raise UsageError(what, id="migrate.way-back", where=folder.old, remedy=remedy)
    for name, content in restore.items():
        path = folder.restore / name
        make_private_dir(path.parent)
        write_atomic(path, content)
    write_atomic(folder.restore / "SHA256SUMS", _sums(restore))
    script = _SCRIPT.format(
        name=folder.name,
        smoke=order.smoke,
        project=_in_double_quotes(order.project),
        inventory=INVENTORY,
        words=shlex.join(order.words),
    )
    write_atomic(folder.way_back, script.encode())
    folder.way_back.chmod(0o700)


def run_way_back(
    folder: MigrationFolder, run_id: str, environment: Mapping[str, str], limit_s: float = LIMIT_S
) -> str:
    """How the script ended, in words, its output in ``way-back.log``; empty for exit 0."""
    folder.way_back_log.unlink(missing_ok=True)
    ended = run_process(
        ["sh", str(folder.way_back), run_id],
        environment=environment,
        folder=str(folder.path),
        output=folder.way_back_log,
        limit_s=limit_s,
    )
    if ended.was_asked:
        raise KeyboardInterrupt
    return ended.ended_by or (f"exit {ended.exit_code}" if ended.exit_code else "")


def judge_way_back(ended: str, before: RunRecord | None, after: RunRecord | None) -> WayBack:
    """``before`` and ``after``: the smoke step in the old bundle, and by the script."""
    if ended or after is None:
        return WayBack(succeeded=False, ended=ended or "the script's run left no record")
    if before is None:
        return WayBack(succeeded=False, ended="the old bundle has no run of the smoke step")
    differences = tuple(str(one) for one in key_differences(before.key, after.key))
    succeeded = after.status is Status.SUCCEEDED
    said = f"run {after.run_id} {after.status.value}"
    return WayBack(succeeded=succeeded, ended=said, differences=differences)


def _sums(restore: Mapping[str, bytes]) -> bytes:
    lines = (f"{hashlib.sha256(restore[name]).hexdigest()}  {name}\n" for name in sorted(restore))
    return "".join(lines).encode()


def _in_double_quotes(text: str) -> str:
    """A path that the shell takes as it is, inside of ``"${PROJECT:-...}"``."""
    if os.sep not in text or any(char in text for char in '\\\\"$`}\n'):
        what = f"the folder {text!r} cannot be written into a script"
        raise UsageError(what, id="migrate.way-back", remedy="capture from another folder")
    return text
