"""Text for terminals: foreign text made harmless, quantities made short."""

from __future__ import annotations

from orchestrator.parsing.replies.display_text import CUT_MARK, clean_line

MAX_LINE = 4096  # as long as a path may be
TIMES = "\u00d7"


def clip_text(text: str, width: int) -> str:
    """At most ``width`` characters; what was cut is marked."""
    return text if len(text) <= width else text[: max(0, width - 1)] + CUT_MARK


def brief_text(text: str, width: int = 160) -> str:
    """Foreign text for one place in a line: harmless and short."""
    return clip_text(clean_line(text), width)


def clean_paragraph(text: str) -> str:
    """Foreign text of several lines: they stay lines, nothing steers the terminal or fills it."""
    return "\n".join(brief_text(line, MAX_LINE) for line in text.split("\n"))


def format_seconds(value: float) -> str:
    """``0.4 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if value < 100:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_size(count: float) -> str:
    """Bytes in decimal units: ``512 B``, ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count_noun(count: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
