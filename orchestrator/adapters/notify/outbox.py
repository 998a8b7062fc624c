"""Notices that wait: a file each, for a process of its own to send, so that no run waits for it.

Nothing here speaks HTTP or SMTP: every run imports it before it starts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from orchestrator.adapters.notify.notice import Notice
from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.adapters.store.background_command import start_in_background
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.parsing.inputs.nights.notify_file import NotifyTarget, load_notify_file

MAX_WAITING = 200

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
        start_in_background(layout, ["notify", "send"], layout.home / "notify" / "send.log")
    return True


def try_notice(layout: Layout, notice: Notice, say: Say) -> None:
    """As :func:`post_notice`, but what goes wrong is only said: no run fails because of it."""
    try:
        post_notice(layout, notice)
    except (OSError, OrchestrateError) as error:
        say(f"warning: no notice was sent: {error}")
