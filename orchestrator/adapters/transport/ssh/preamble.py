"""What a login shell says before the command that SSH hands to it has begun."""

from __future__ import annotations

from collections.abc import Callable

MAX_NOISE_BYTES = 1024 * 1024
MAX_PID_DIGITS = 10
TAIL_BYTES = 4096


class Preamble:
    """Holds back a stream until the marker has passed; reports the number behind it to ``on_pid``.

    Noise is dropped, all but its end: if the marker never comes, that is the only explanation.
    """

    def __init__(self, marker: str, on_pid: Callable[[int], None]) -> None:
        self._marker = marker.encode() + b" "
        self._on_pid = on_pid
        self._held: bytearray | None = bytearray()

    @property
    def overflowed(self) -> bool:
        """Whether more came than any start-up file writes, and still no marker."""
        return self._held is not None and len(self._held) > MAX_NOISE_BYTES

    def feed(self, data: bytes) -> bytes:
        """What may pass after ``data`` arrived."""
        if self._held is None:
            return data
        if self.overflowed:
            return b""
        searched = max(0, len(self._held) - len(self._marker) - MAX_PID_DIGITS)
        self._held += data
        start = self._held.find(self._marker, searched)
        end = self._held.find(b"\n", start) if start >= 0 else -1
        if end < 0:
            return b""
        digits = bytes(self._held[start + len(self._marker) : end])
        rest = bytes(self._held[end + 1 :])
        self._held = None
        self._on_pid(int(digits) if digits.isdigit() and len(digits) < MAX_PID_DIGITS else 0)
        return rest

    def tail(self) -> bytes:
        """The end of what is held back."""
        return bytes((self._held or b"")[-TAIL_BYTES:])

    def release(self) -> bytes:
        """What is held back, for a stream whose marker is lost though the command ran."""
        held, self._held = self._held, None
        return bytes(held or b"")
