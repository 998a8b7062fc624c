"""One streamed answer of an OpenAI-compatible server: HTTP/1.1, chunks, server-sent events.

Pure: bytes and the time of their arrival go in, what they mean is kept. Whatever the cuts between
the pieces, the outcome is the same. Nothing of the server is trusted; every buffer has a bound.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from math import isnan, nan

from .events import Around, Decode, around_text, as_count, has_content, is_blank, is_plain

MAX_HEAD_BYTES = 64 * 1024
MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_CHUNKS = 1_000_000
MAX_DETAIL = 300
# How often in one answer what is around its texts is looked for: a first event may have a role too.
MOST_TEMPLATES = 4
_HEAD, _SIZE, _DATA, _AFTER_DATA, _TRAILER, _LENGTH, _UNTIL_CLOSE, _OVER = range(8)
_LINE = b"\r\n"
# Of chunks, as they are usually written.
_SIZES = {b"%x" % size: size for size in range(1, 4096)}
_HEX = frozenset(b"0123456789abcdefABCDEF")
# Half of the time that `json.loads` takes for a line as short as these.
_decode: Decode = json.JSONDecoder().raw_decode


class Answer:
    """What came of one request, while it comes.

    ``over``: the body has ended, and the connection may be used again unless ``closes``.
    """

    __slots__ = (
        "_around",
        "_blanks_s",
        "_event",
        "_left",
        "_listens",
        "_refusal",
        "_rest",
        "_state",
        "_streams",
        "_templates",
        "chunks_s",
        "closed_s",
        "closes",
        "detail",
        "done",
        "failure",
        "opened_s",
        "output_tokens",
        "prompt_tokens",
        "status",
    )

    def __init__(self) -> None:
        self._state = _HEAD
        self._rest = b""
        self._event = b""
        self._left = 0
        self._refusal = ""
        self._around: Around | None = None
        self._templates = 0
        self._streams = self._listens = False
        self.status = 0
        self.closes = False
        self.done = False
        self.chunks_s = array("d")
        self._blanks_s = array("d")
        self.opened_s = self.closed_s = nan
        self.output_tokens = 0
        self.prompt_tokens = 0
        self.failure = ""
        self.detail = ""

    @property
    def over(self) -> bool:
        return self._state == _OVER

    @property
    def begun(self) -> bool:
        """Whether anything has arrived."""
        return self._state != _HEAD or bool(self._rest)

    def feed(self, data: bytes, now_s: float) -> None:
        """What arrived at this time."""
        data = self._rest + data if self._rest else data
        self._rest = b""
        place, size = 0, len(data)
        while place < size and self._state != _OVER:
            if self._state == _SIZE:
                place = self._take_chunks(data, place, now_s)
                if place == size or self._state == _OVER:
                    return
            step = self._take(data, place, now_s)
            if step < 0:
                self._rest = data[place:]
                return
            place += step

    def end_of_stream(self) -> None:
        """The server closed the connection. Only a body without a length ends so."""
        if self._state == _UNTIL_CLOSE:
            self._finish()
        elif self._state != _OVER:
            self._fail("truncated" if self.begun else "closed", "the server closed the connection")

    def _take_chunks(self, data: bytes, place: int, now_s: float) -> int:
        """Chunks that are there as a whole, with an event of one line each: nearly all are. The
        place behind them.
        """
        find, known = data.find, -1
        while self._state == _SIZE:
            if self._around is not None and known != len(self.chunks_s):
                place = self._take_alike(data, place, self._around, now_s)
                known = len(self.chunks_s)
            end = find(b"\r\n", place, place + 10)
            digits = data[place:end]
            if end <= place or not _HEX.issuperset(digits):
                break
            start = end + 2
            stop = start + int(digits, 16)
            if stop == start or data[stop : stop + 2] != b"\r\n":
                break
            ends = data[stop - 2 : stop] == b"\n\n" and find(b"\n", start, stop) == stop - 2
            if ends and self._listens and not self._event and data.startswith(b"data: {", start):
                self._take_object(data[start + 6 : stop - 2], now_s)
            else:
                self._body(data[start:stop], now_s)
            place = stop + 2
        return place

    def _take_alike(self, data: bytes, place: int, around: Around, now_s: float) -> int:
        """Chunks of one event each, known but for its text. The place behind them."""
        if self._event:
            return place
        head, tail = around
        before, behind, count = len(head), len(tail), 0
        find, starts, ends = data.find, data.startswith, data.endswith
        while size := _SIZES.get(data[place : (end := find(b"\r", place, place + 5))], 0):
            start, stop = end + 2, end + 2 + size
            if not (
                starts(head, start)
                and ends(tail, start, stop)
                and is_plain(data, start + before, stop - behind)
                and starts(_LINE, end)
                and starts(_LINE, stop)
            ):
                break
            place = stop + 2
            count += 1
        if count:
            self._see_content(now_s, count)
        return place

    def _take(self, data: bytes, place: int, now_s: float) -> int:
        """How many bytes from ``place`` were understood; -1 = more are needed."""
        state = self._state
        if state == _SIZE:
            return self._take_size(data, place)
        if state in (_DATA, _LENGTH):
            step = min(self._left, len(data) - place)
            self._left -= step
            self._body(data[place : place + step], now_s)
            if not self._left and self._state == state:
                self._end_of_part(state)
            return step
        if state == _AFTER_DATA:
            if len(data) - place < 2:
                return -1
            if data[place : place + 2] != b"\r\n":
                self._fail("protocol", "a chunk without its end")
                return 0
            self._state = _SIZE
            return 2
        if state == _HEAD:
            return self._take_head(data, place)
        if state == _TRAILER:
            return self._take_trailer(data, place)
        self._body(data[place:], now_s)
        return len(data) - place

    def _end_of_part(self, state: int) -> None:
        if state == _DATA:
            self._state = _AFTER_DATA
        else:
            self._finish()

    def _take_head(self, data: bytes, place: int) -> int:
        end = data.find(b"\r\n\r\n", place)
        if end < 0 or end - place > MAX_HEAD_BYTES:
            if len(data) - place > MAX_HEAD_BYTES:
                self._fail("protocol", f"a header of more than {MAX_HEAD_BYTES} bytes")
                return 0
            return -1
        first, *lines = data[place:end].split(b"\r\n")
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            self._fail("protocol", f"no HTTP/1.1 answer: {first[:80]!r}")
            return 0
        self.status = int(rest[:3])
        if 100 <= self.status < 200:
            return end + 4 - place
        headers = {name.strip().lower(): value.strip() for name, _, value in map(_split, lines)}
        kind = headers.get(b"content-type", b"").lower()
        self._streams = kind.startswith(b"text/event-stream")
        self._listens = self._streams and self.status == 200
        options = headers.get(b"connection", b"").lower()
        self.closes = b"close" in options or version != b"HTTP/1.1"
        self._refusal = _refusal(self.status, headers)
        coding = headers.get(b"content-encoding", b"identity").lower()
        if coding not in {b"identity", b""}:
            self._fail("protocol", f"compressed ({coding[:20].decode('latin-1')}), unasked")
            return 0
        length = headers.get(b"content-length", b"")
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._state = _SIZE
        elif length.isdigit() and len(length) < 16:
            self._state, self._left = _LENGTH, int(length)
            if not self._left:
                self._finish()
        else:
            self._state, self.closes = _UNTIL_CLOSE, True
        return end + 4 - place

    def _take_size(self, data: bytes, place: int) -> int:
        end = data.find(b"\r\n", place)
        if end < 0:
            if len(data) - place > MAX_HEAD_BYTES:
                self._fail("protocol", "a chunk without a size")
                return 0
            return -1
        digits = data[place:end].partition(b";")[0].strip()
        if not digits or len(digits) > 8 or not _HEX.issuperset(digits):
            self._fail("protocol", f"a chunk of size {digits[:20]!r}")
            return 0
        self._left = int(digits, 16)
        self._state = _DATA if self._left else _TRAILER
        return end + 2 - place

    def _take_trailer(self, data: bytes, place: int) -> int:
        end = data.find(b"\r\n", place)
        if end < 0:
            if len(data) - place > MAX_HEAD_BYTES:
                self._fail("protocol", "a trailer without an end")
                return 0
            return -1
        if end == place:
            self._finish()
        return end + 2 - place

    def _body(self, data: bytes, now_s: float) -> None:
        if not self._listens:
            if len(self.detail) < MAX_DETAIL:
                self.detail += data[:MAX_DETAIL].decode(errors="replace")
            return
        text, held = self._event + data if self._event else data, b""
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
            held = b"\r" if text.endswith(b"\r") else b""  # half of a line's end, perhaps
            text = text[: len(text) - len(held)].replace(b"\r", b"\n")
        events = text.split(b"\n\n")
        self._event = events.pop() + held
        if len(self._event) > MAX_EVENT_BYTES:
            self._fail("protocol", f"an event of more than {MAX_EVENT_BYTES} bytes")
            return
        for event in events:
            self._take_event(event, now_s)

    def _take_event(self, event: bytes, now_s: float) -> None:
        if event.startswith(b"data: ") and b"\n" not in event:
            data = event[6:].strip()
        else:
            lines = [line.partition(b":") for line in event.split(b"\n")]
            fields = [(name, value.strip()) for name, _, value in lines]
            data = b"\n".join(value for name, value in fields if name == b"data")
            if (b"event", b"error") in fields or (not data and fields[0][0] == b"error"):
                self._fail("error event", (data or fields[0][1]).decode(errors="replace"))
                return
        if not data:
            return
        if data == b"[DONE]":
            self.done = True
            return
        self._take_object(data, now_s)

    def _take_object(self, data: bytes, now_s: float) -> None:
        """As ``json.loads`` would, without what that does for other inputs."""
        # Of a character that the server cut between two events only a part is UTF-8.
        text = data.decode(errors="replace")
        try:
            entry, end = _decode(text)
            if end != len(text) and not text[end:].isspace():
                raise ValueError("more than one value")
            if self._take_entry(entry, now_s) and self._templates < MOST_TEMPLATES:
                self._templates += 1
                self._around = around_text(data, entry, _decode) or self._around
        except (ValueError, TypeError, AttributeError, RecursionError):
            self._fail("protocol", f"an event that is no completion: {data[:80]!r}")

    def _take_entry(self, entry: dict[str, object], now_s: float) -> bool:
        """Whether it brought content. Raises what a wrong type raises."""
        if entry.get("error"):
            self._fail("error event", str(entry["error"]))
            return False
        before = len(self.chunks_s)
        choices = entry.get("choices") or ()
        for choice in choices:  # type: ignore[attr-defined]
            if has_content(choice):
                self._see_content(now_s)
            elif is_blank(choice):
                self._see_blank(now_s)
            if choice.get("finish_reason"):
                self.done = True
        if choices and len(self.chunks_s) == before:
            self._see_empty(now_s)
        usage = entry.get("usage")
        if usage is not None and isinstance(usage, dict):
            self.output_tokens = as_count(usage.get("completion_tokens"))
            self.prompt_tokens = as_count(usage.get("prompt_tokens"))
        return len(self.chunks_s) != before

    def _see_empty(self, now_s: float) -> None:
        """Around the content: a role before it, the reason of the end after it."""
        if self.chunks_s:
            self.closed_s = now_s
        elif isnan(self.opened_s):
            self.opened_s = now_s

    def _see_blank(self, now_s: float) -> None:
        if not self.chunks_s and len(self._blanks_s) < MAX_CHUNKS:
            self._blanks_s.append(now_s)

    def _see_content(self, now_s: float, count: int = 1) -> None:
        if len(self.chunks_s) + count > MAX_CHUNKS:
            self._fail("protocol", f"more than {MAX_CHUNKS} chunks")
            return
        self.chunks_s.extend([now_s] * count)
        self.closed_s = nan

    def _finish(self) -> None:
        self._state = _OVER
        if self._event.strip() == b"data: [DONE]":
            self.done = True  # some servers leave out the blank line behind it
        if self.failure:
            return
        if self.status != 200:
            self._fail(f"status {self.status}", f"{self._refusal} {self.detail}")
        elif not self._streams:
            self._fail("protocol", f"no event stream: {self.detail}")
        elif not self.done:
            self._fail("truncated", "the stream ended without [DONE] or a finish_reason")
        elif not self._has_tokens():
            self._fail("empty", "the stream had no content")

    def _has_tokens(self) -> bool:
        """With a text, or where all are without one, as the server has counted them."""
        if not self.chunks_s and self.output_tokens:
            self.chunks_s = self._blanks_s
        return bool(self.chunks_s)

    def _fail(self, kind: str, detail: str) -> None:
        """The first failure counts; nothing more is read, and the connection is not used again."""
        if not self.failure:
            self.failure, self.detail = kind, " ".join(detail.split())[:MAX_DETAIL]
        if self._state != _OVER:
            self._state, self.closes = _OVER, True


def _split(line: bytes) -> tuple[bytes, bytes, bytes]:
    return line.partition(b":")


def _refusal(status: int, headers: Mapping[bytes, bytes]) -> str:
    """What the header of a refused request says of when, or where, it would be taken."""
    name = "retry-after" if status in {429, 503} else "location" if 300 <= status < 400 else ""
    value = headers.get(name.encode(), b"")[:80].decode("latin-1")
    return f"({name}: {value})" if name and value.isprintable() and value else ""
