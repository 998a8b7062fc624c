"""Foreign text for terminals and pages: escapes and controls removed, lines bounded."""

from __future__ import annotations

import codecs
import re

CUT_MARK = "…"
DISPLAY_LIMIT = 2000

# Patterns; most commands never compile them.
_ESCAPES = (
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links, clipboard
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # the other escapes, also unfinished ones
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI as a single character
)
# Controls, direction overrides, separators that terminals take for line ends, lone surrogates, and
# characters that nobody sees but programs read.
_CONTROLS = (
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_LINE_END = r"\r\n|\n|\r"


def clean_line(text: str) -> str:
    """``text`` as one line without anything that could steer a terminal or reorder its text."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_CONTROLS, "", re.sub(_ESCAPES, "", text.replace("\n", " "))).expandtabs(8)


class LineDecoder:
    """Bytes in any portions to harmless display lines. ``\\r`` ends a line: progress bars redraw.

    Only the first ``limit`` characters of a line are kept; a mark says how many are not shown.
    """

    def __init__(self, limit: int = DISPLAY_LIMIT) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._kept = ""
        self._dropped = 0
        self._after_return = False

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that ``chunk`` completes."""
        return self._take(self._decoder.decode(chunk))

    def finish(self) -> list[str]:
        """The unfinished last line, if any."""
        lines = self._take(self._decoder.decode(b"", final=True))
        return [*lines, self._line()] if self._kept else lines

    def _take(self, text: str) -> list[str]:
        if not text:
            return []
        if self._after_return:
            text = text.removeprefix("\n")
        self._after_return = text.endswith("\r")
        *complete, rest = re.split(_LINE_END, text)
        lines: list[str] = []
        for part in complete:
            self._keep(part)
            lines.append(self._line())
        self._keep(rest)
        return lines

    def _keep(self, part: str) -> None:
        # Escape sequences vanish on display, so more than the limit is kept until then.
        room = self._limit * 2 - len(self._kept)
        self._kept += part[:room]
        self._dropped += max(0, len(part) - max(0, room))

    def _line(self) -> str:
        line, dropped = clean_line(self._kept), self._dropped
        self._kept, self._dropped = "", 0
        hidden = dropped + max(0, len(line) - self._limit)
        return f"{line[: self._limit]}{CUT_MARK} (+{hidden} characters)" if hidden else line
