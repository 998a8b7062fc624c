"""What the kernel said since an attempt began: out of memory, Xid, ECC, links that went down.

``/dev/kmsg`` where we may read it, else the journal; where neither is allowed, the reason. Times
are this node's own, as in the logs of its ranks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque

from orchestrator.node_agent.base.agent_errors import no_answer_reason
from orchestrator.node_agent.base.wire import read_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from orchestrator.node_agent.base.node_layout import NodeLayout

KMSG = "/dev/kmsg"
RECORD_BYTES = 8192  # the kernel's own bound for one record
MAX_RECORDS = 200_000
MAX_BYTES = 256 * 1024
MAX_MATCHING = 10_000
MAX_DIGITS = 20
JOURNAL_S = 10.0
MAX_SINCE_S = 366 * 86400.0


def read_kernel_log(layout: NodeLayout, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The payload: lines of the last ``since_s`` seconds, the newest ``MAX_BYTES`` of them."""
    del layout
    since_s = read_seconds(request, "since_s", 0.0, MAX_SINCE_S)
    try:
        return {"source": KMSG}, _newest(_records(since_s))
    except OSError as error:
        denied = f"{KMSG}: {error.strerror}"
    try:
        return {"source": "journal"}, _newest(_journal(since_s))
    except (OSError, subprocess.SubprocessError) as error:
        return {
            "source": "",
            "denied": f"{denied}; journalctl: {no_answer_reason(error)}"[:400],
        }, b""


def matching_lines(needle: bytes, since_s: float) -> tuple[list[bytes], str]:
    """The newest lines that hold ``needle``; and why there are none if the log may not be read."""
    try:
        return _holding(needle, _records(since_s)), ""
    except OSError as error:
        denied = f"{KMSG}: {error.strerror}"
    try:
        lines = list(_journal(since_s))
    except (OSError, subprocess.SubprocessError) as error:
        return [], f"{denied}; journalctl: {no_answer_reason(error)}"[:400]
    if not lines:  # the kernel never says nothing: we may see our own journal only
        return [], f"{denied}; journalctl shows nothing of the kernel"
    return _holding(needle, iter(lines)), ""


def _holding(needle: bytes, lines: Iterator[bytes]) -> list[bytes]:
    return list(deque((line for line in lines if needle in line), maxlen=MAX_MATCHING))


def _newest(lines: Iterator[bytes]) -> bytes:
    kept: deque[bytes] = deque()
    size = 0
    for line in lines:
        kept.append(line)
        size += len(line)
        while size > MAX_BYTES:
            size -= len(kept.popleft())
    return b"".join(kept)


def _records(since_s: float) -> Iterator[bytes]:
    """Records of the ring buffer; each read gives one. Raises ``OSError`` if we may not."""
    now, clock = time.time(), time.monotonic()
    fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for _ in range(MAX_RECORDS):
            try:
                record = os.read(fd, RECORD_BYTES)
            except BlockingIOError:  # that was the last one
                return
            except BrokenPipeError:  # the oldest were overwritten meanwhile
                continue
            line = _line(record, now, clock, since_s)
            if line:
                yield line
    finally:
        os.close(fd)


def _line(record: bytes, now: float, clock: float, since_s: float) -> bytes:
    """``priority,sequence,microseconds,flags;text`` as a line with a date; empty if it is older."""
    head, _, rest = record.partition(b";")
    parts = head.split(b",")
    if len(parts) < 3 or not parts[2].isdigit() or len(parts[2]) > MAX_DIGITS:
        return b""
    age_s = clock - int(parts[2]) / 1e6
    if age_s > since_s:
        return b""
    text = rest.split(b"\n", 1)[0]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - age_s))
    return stamp.encode() + b" kernel: " + text + b"\n"


def _journal(since_s: float) -> Iterator[bytes]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - since_s))
    argv = ["journalctl", "-k", "-b", "-o", "short-iso", "--no-pager", "-q", "--since", since]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=JOURNAL_S, check=True
    )
    return iter(done.stdout.splitlines(keepends=True))
