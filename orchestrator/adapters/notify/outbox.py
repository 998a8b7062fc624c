"""Notices that wait: a file each, for a process of its own to send, so that no run waits for it.

Nothing here speaks HTTP or SMTP: every run imports it before it starts.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from orchestrator.adapters.notify.notice import Notice
from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.parsing.inputs.nights.notify_file import NotifyTarget, load_notify_file

MAX_WAITING = 200
MAX_LOG_BYTES = 1 << 20

Say = Callable[[str], None]


def outbox_folder(layout: Layout) -> Path:
    return layout.home / "notify" / "outbox"


def notify_file(layout: Layout) -> Path:
    return layout.home / "notify.yaml"


def read_targets(layout: Layout) -> tuple[NotifyTarget, ...]:
    """The targets; none without a file. Raises :class:`UsageError`."""
    path = notify_file(layout)
    try:
        return load_notify_file(path.read_bytes(), str(path))
    except FileNotFoundError:
        return ()


def post_notice(layout: Layout, notice: Notice, *, start_sender: bool = True) -> bool:
    """Put ``notice`` into the outbox and start a process that sends it, in milliseconds; whether
    anyone wants it. Raises ``OSError``, ``OrchestrateError``.
    """
    if not any(notice.occasion.value in target.on for target in read_targets(layout)):
        return False
    folder = make_private_dir(outbox_folder(layout))
    waiting = sorted(folder.glob("*.json"))
    for old in waiting[: max(0, len(waiting) - MAX_WAITING + 1)]:
        old.unlink(missing_ok=True)
    name = f"{time.time_ns():020d}-{random.getrandbits(32):08x}.json"
    write_json(folder / name, {**asdict(notice), "sent": []})
    if start_sender:
        _start_sender(layout)
    return True


def _start_sender(layout: Layout) -> None:
    """A process that outlives this one. Its environment has the secrets, its command line none."""
    log = layout.home / "notify" / "send.log"
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
    environment = {**os.environ, "ORCHESTRATE_HOME": str(layout.home), **_import_path()}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # Nothing waits for it: it belongs to init when this process has ended.
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "orchestrator", "notify", "send"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _import_path() -> dict[str, str]:
    import orchestrator

    root = str(Path(orchestrator.__file__).resolve().parents[1])
    given = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, given)))}


def try_notice(layout: Layout, notice: Notice, say: Say) -> None:
    """As :func:`post_notice`, but what goes wrong is only said: no run fails because of it."""
    try:
        post_notice(layout, notice)
    except (OSError, OrchestrateError) as error:
        say(f"warning: no notice was sent: {error}")
