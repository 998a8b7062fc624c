"""Frames: a JSON object per line, and n raw bytes after it where it says ``"payload": n``."""

from __future__ import annotations

import json
import os
import signal
import threading

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault, shorten_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, BinaryIO

MAX_FRAME_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024
SILENCE_S = 120.0  # the coordinator's pings come several times as often


class WireError(Exception):
    """What arrived is not a frame; the stream cannot be trusted any more."""


def note_contact() -> None:
    """The coordinator is there. After ``SILENCE_S`` without this the kernel ends the process: on a
    host whose network vanished nothing else would.
    """
    signal.setitimer(signal.ITIMER_REAL, SILENCE_S)


class FrameWriter:
    """Writes whole frames from any thread. A full pipe makes the writer wait."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, frame: Mapping[str, Any], payload: bytes = b"") -> None:
        """Raises ``OSError`` when the other side is gone."""
        if payload:
            frame = {**frame, "payload": len(payload)}
        line = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_FRAME_BYTES:
            raise AgentFault(BAD_REQUEST, "the answer is too long for one frame")
        with self._lock:
            for data in (line, payload):
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]


class Body:
    """The raw payload of a request, read at most once and never beyond its end."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.size = size
        self.remaining = size
        self.consumed = threading.Event()
        if not size:
            self.consumed.set()

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, ``b""`` at the end. Raises ``EOFError`` if the link ends first."""
        wanted = self.remaining if size < 0 else min(size, self.remaining)
        if not wanted:
            return b""
        data = bytearray()
        while len(data) < wanted:
            piece = self._stream.read(min(CHUNK_BYTES, wanted - len(data)))
            if not piece:
                raise EOFError("the link ended within a payload")
            note_contact()
            data += piece
            self.remaining -= len(piece)
        if not self.remaining:
            self.consumed.set()
        return bytes(data)

    def read_all(self, limit: int) -> bytes:
        """The whole payload. Raises :class:`AgentFault` if it is longer than ``limit``."""
        if self.size > limit:
            raise AgentFault(BAD_REQUEST, f"a payload of {self.size} bytes; {limit} are allowed")
        return self.read()

    def drain(self) -> None:
        """Discard what nobody read, so that the next frame can be found."""
        while self.read(CHUNK_BYTES):
            pass


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next request, or None at the end. Raises :class:`WireError`."""
    line = stream.readline(MAX_FRAME_BYTES + 1)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise WireError("a frame is torn or too long")
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame is not JSON") from error
    if not isinstance(frame, dict):
        raise WireError("a frame is not an object")
    size = frame.get("payload", 0)
    if type(size) is not int or size < 0:
        raise WireError("a payload size is not a number")
    return frame


def read_field(frame: Mapping[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """``frame[name]`` if it has the type ``kind``; a bool is not a number."""
    value = frame.get(name, default)
    if value is default and default is not ...:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise AgentFault(BAD_REQUEST, f"{name!r} is not {kind.__name__}: {shorten_value(value)}")
    return value


def read_seconds(frame: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """A duration between ``low`` and ``high``."""
    value: float = read_field(frame, name, float)
    if not low <= value <= high:
        raise AgentFault(BAD_REQUEST, f"{name!r} is not within {low:g}..{high:g} s: {value!r}")
    return value


def read_strings(frame: Mapping[str, Any], name: str, limit: int, default: Any = ...) -> Any:
    """A list of at most ``limit`` texts without NUL."""
    value = read_field(frame, name, list, default)
    if value is default:
        return value
    if len(value) > limit or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise AgentFault(BAD_REQUEST, f"{name!r} is not a list of texts")
    return value
