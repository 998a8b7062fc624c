"""The status page as text of any kind, and as a file that stays fresh while a night runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.nightly.status_page import StatusPage, gather_status
from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.parsing.inputs.nights.schedule_file import status_kind
from orchestrator.view.result import status_text


def render_status(page: StatusPage, kind: str, every_s: float | None = None) -> str:
    """``kind``: text, markdown, json or html; ``every_s``: how often a browser reads it again."""
    if kind == "json":
        record = {"type": "status", "schema_version": 1, **status_text.status_object(page)}
        return json.dumps(record, ensure_ascii=True) + "\n"
    if kind == "html":
        return status_text.status_html(page, every_s)
    if kind == "markdown":
        return status_text.status_markdown(page)
    return status_text.status_plain(page)


def write_status(path: Path, text: str) -> None:
    """A reader sees the old page or the new one. Raises :class:`UsageError`."""
    try:
        write_atomic(path.absolute(), text.encode("utf-8", "replace"))
    except OSError as error:
        what = f"the status could not be written: {error.strerror or error}"
        raise UsageError(what, id="status.out", where=path, remedy="name another file") from error


@dataclass(slots=True)
class StatusFile:
    """The file that a schedule keeps fresh, in the format that its name says; ``path`` empty: none.
    What goes wrong is said once: no night fails because of it.
    """

    layout: Layout
    path: str
    every_s: float
    say: Callable[[str], None]
    _next: float = field(default=0.0, init=False)
    _failed: bool = field(default=False, init=False)

    def refresh(self) -> None:
        """Write the page, unless that was done less than ``every_s`` seconds ago."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write the page now."""
        if not self.path:
            return
        self._next = time.monotonic() + self.every_s
        try:
            page = gather_status(self.layout, now=time.time())
            text = render_status(page, status_kind(self.path), self.every_s)
            write_status(Path(self.path), text)
        except (OSError, OrchestrateError) as error:
            if not self._failed:
                self.say(f"warning: {error}")
            self._failed = True
