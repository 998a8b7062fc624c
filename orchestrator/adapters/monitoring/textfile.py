"""Files that node_exporter's textfile collector reads."""

from __future__ import annotations

import os
from pathlib import Path


def write_for_collector(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole; everybody may read it, for the collector is another user.

    Raises ``OSError``; the old file then stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
