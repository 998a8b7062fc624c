"""What the terminal can do, and lines written to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from typing import TextIO

RESET = "\x1b[0m"
BOLD, RED, GREEN, YELLOW = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_NODE_COLOURS = tuple(f"\x1b[{code}m" for code in (36, 32, 33, 35, 34, 96, 92, 93, 95, 94))


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at ``stream``; a closed stream is none."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def use_color(choice: str, stream: TextIO, environment: Mapping[str, str]) -> bool:
    """``always`` and ``never`` decide; ``auto`` asks NO_COLOR, TERM and the stream."""
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return is_terminal(stream)


def can_redraw(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether lines on ``stream`` can be rewritten in place."""
    return is_terminal(stream) and environment.get("TERM", "") not in {"", "dumb"}


def paint_text(text: str, style: str, *, color: bool) -> str:
    """``text`` in ``style`` if ``color``."""
    return f"{style}{text}{RESET}" if color and text else text


class NodeColors:
    """One colour per node, in the order in which nodes appear."""

    def __init__(self) -> None:
        self._colours: dict[str, str] = {}

    def of(self, node: str) -> str:
        index = len(self._colours) % len(_NODE_COLOURS)
        return self._colours.setdefault(node, _NODE_COLOURS[index])


class LineWriter:
    """Writes lines to a stream whose reader may leave: the run goes on without it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False
        self._lock = threading.Lock()

    def write(self, lines: Iterable[str]) -> None:
        """All ``lines`` in one write, so that other writers do not come between."""
        text = "".join(f"{line}\n" for line in lines)
        if not text or self._gone:
            return
        encoding = self._stream.encoding or "utf-8"
        with self._lock:
            try:
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._gone = True

    def line(self, text: str) -> None:
        self.write([text])

    def close(self) -> None:
        """Make the interpreter's own flush at exit harmless when the reader left."""
        if self._gone:
            with contextlib.suppress(OSError, ValueError):
                self._stream.close()
