"""Text for terminals: foreign text made harmless, quantities made short."""

from __future__ import annotations

import re

CUT_MARK = "…"
MAX_LINE = 4096  # as long as a path may be
TIMES = "\u00d7"

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links, clipboard
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # the other escapes, also unfinished ones
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI as a single character
)
# Controls, direction overrides, separators that terminals take for line ends, lone surrogates, and
# characters that nobody sees but programs read.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def clean_line(text: str) -> str:
    """``text`` as one line without anything that could steer a terminal or reorder its text."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\n", " "))).expandtabs(8)


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
