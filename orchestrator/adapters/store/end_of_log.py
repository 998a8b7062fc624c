"""The end of a log that a process of ours wrote."""

from __future__ import annotations

from pathlib import Path


def last_line(log: Path, limit_bytes: int) -> str:
    """The last line that is not blank, of the last ``limit_bytes``; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - limit_bytes))
            lines = file.read(limit_bytes).decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
