"""Files that node_exporter's textfile collector reads."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.store.atomic_files import write_atomic


def write_for_collector(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole; everybody may read it, for the collector is another user.

    Raises ``OSError``; the old file then stays.
    """
    write_atomic(path, content, mode=0o644, durable=False)
