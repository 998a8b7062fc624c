"""What a stream from a pod has besides the command's output: signs of life, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.core.base.outcome import Exited, Outcome, Signalled

MAX_DIGITS = 3
KINDS: Mapping[bytes, Callable[[int], Outcome]] = {b"E": Exited, b"S": Signalled}
ALIVE, ENDED = b"~\n", b"."


class EndingFilter:
    """Lets a stream pass up to ``MARKER.E0`` or ``MARKER.S9``; what follows is not the command's.
    ``MARKER~`` is a sign of life, and left out.

    So much of the stream's end is held back as may be the beginning of either.
    """

    def __init__(self, marker: str) -> None:
        self._marker = marker.encode()
        self._held = b""
        self._found = False
        self.outcome: Outcome | None = None

    @property
    def over(self) -> bool:
        """Whether the end has come."""
        return self.outcome is not None

    def feed(self, data: bytes) -> bytes:
        """What may pass after ``data`` arrived."""
        self._held += data
        passed = bytearray()
        while not self._found:
            start = self._held.find(self._marker)
            if start < 0:
                keep = len(self._held) - self._beginning()
                passed += self._held[:keep]
                self._held = self._held[keep:]
                return bytes(passed)
            passed += self._held[:start]
            self._held = self._held[start:]
            behind = self._held[len(self._marker) :]
            if behind.startswith(ALIVE):
                self._held = behind[len(ALIVE) :]
            elif behind.startswith(ENDED):
                self._found, self._held = True, behind[len(ENDED) :]
            elif ALIVE.startswith(behind):  # the rest is on its way
                return bytes(passed)
            else:  # the command wrote it itself
                passed += self._marker
                self._held = behind
        self._read_outcome()
        return bytes(passed)

    def release(self) -> bytes:
        """What is still held back, once nothing more can come."""
        held, self._held = self._held, b""
        return b"" if self._found else held

    def _beginning(self) -> int:
        """How many of the last bytes may be the marker's first ones."""
        for size in range(min(len(self._marker) - 1, len(self._held)), 0, -1):
            if self._marker.startswith(self._held[-size:]):
                return size
        return 0

    def _read_outcome(self) -> None:
        self._held = self._held[: MAX_DIGITS + 2]
        line, newline, _ = self._held.partition(b"\n")
        if self.outcome is None and newline and line[:1] in KINDS and line[1:].isdigit():
            self.outcome = KINDS[line[:1]](int(line[1:]))
