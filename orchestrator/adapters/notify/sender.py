"""The process that sends what waits in the outbox: all targets at once, with bounded retries."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from orchestrator.adapters.notify.deliver import NotDelivered, deliver
from orchestrator.adapters.notify.notice import Notice, Occasion
from orchestrator.adapters.notify.outbox import Say, outbox_folder, read_targets
from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.adapters.store.layout import Layout
from orchestrator.parsing.inputs.nights.notify_file import NotifyTarget

ATTEMPTS = 4
ATTEMPT_S = 30.0  # of all targets together: a server may answer a byte at a time
FIRST_WAIT_S = 2.0  # doubled after each attempt
MAX_AGE_S = 86_400.0
DEADLINE_S = 300.0  # of one process that sends


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSender:
    """``environ``: where targets find their secrets; ``say``: told of each attempt that failed."""

    layout: Layout
    environ: Mapping[str, str]
    say: Say
    sleep: Callable[[float], None] = time.sleep

    def send_waiting(self) -> int:
        """Send what waits, with bounded retries; how many notices were not delivered to someone.

        One process at a time; what was sent to a target is not sent to it again.
        """
        folder = make_private_dir(outbox_folder(self.layout))
        with (folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0  # that process reads the folder again before it ends
            deadline, left = time.monotonic() + DEADLINE_S, 0
            seen: set[Path] = set()
            while time.monotonic() < deadline:
                fresh = [path for path in sorted(folder.glob("*.json")) if path not in seen]
                if not fresh:
                    break
                seen.update(fresh)
                left += sum(not self._send_file(path) for path in fresh)
            return left

    def _send_file(self, path: Path) -> bool:
        """Whether everyone has it; the file goes when they have, or when it is too old."""
        try:
            data = json.loads(path.read_bytes())
            sent = [str(name) for name in data.pop("sent")]
            notice = Notice(**{**data, "occasion": Occasion(data["occasion"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            path.unlink(missing_ok=True)
            return True
        wanted = [t for t in read_targets(self.layout) if notice.occasion.value in t.on]
        for delivered in self._rounds(notice, [t for t in wanted if t.name not in sent]):
            sent += delivered
            write_json(path, {**asdict(notice), "sent": sent})
        done = all(target.name in sent for target in wanted)
        if done or time.time() - path.stat().st_mtime > MAX_AGE_S:
            path.unlink(missing_ok=True)
        return done

    def _rounds(self, notice: Notice, targets: Sequence[NotifyTarget]) -> Iterator[list[str]]:
        """Try all targets at once, and those that failed again; whom each round reached."""
        tries = [_Try(notice, target, self.environ) for target in targets]
        for attempt in range(ATTEMPTS):
            if not tries:
                return
            if attempt:
                self.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            for each in tries:
                each.begin()
            deadline = time.monotonic() + ATTEMPT_S
            left = [each for each in tries if not each.reached(deadline)]
            for each in left:
                said = f"attempt {attempt + 1} of {ATTEMPTS}: {each.problem}"
                self.say(f"{each.target.name}: {said}")
            yield [each.target.name for each in tries if each not in left]
            tries = left


class _Try:
    """One target: a server that answers a byte at a time holds up neither the others nor the end.
    An attempt that has not ended is waited for again, not repeated: it may yet succeed.
    """

    def __init__(self, notice: Notice, target: NotifyTarget, environ: Mapping[str, str]) -> None:
        self.target = target
        self.problem = ""
        self._send = partial(deliver, notice, target, environ)
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        ended = self._thread is None or not self._thread.is_alive()
        if ended and (self.problem or self._thread is None):
            self.problem = f"no end within {ATTEMPT_S:g} s"
            self._thread = threading.Thread(target=self._deliver, daemon=True)
            self._thread.start()

    def reached(self, deadline: float) -> bool:
        """Whether the target has it by ``deadline`` (monotonic seconds)."""
        assert self._thread is not None
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self.problem

    def _deliver(self) -> None:
        try:
            self._send()
            self.problem = ""
        except NotDelivered as error:
            self.problem = error.what
        except Exception as error:  # noqa: BLE001 - of apprise's many services; its text may be secret
            self.problem = type(error).__name__
