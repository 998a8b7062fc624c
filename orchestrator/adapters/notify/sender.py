"""The process that sends what waits in the outbox: bounded retries, one at a time."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from orchestrator.adapters.notify.deliver import NotDelivered, deliver
from orchestrator.adapters.notify.notice import Notice, Occasion
from orchestrator.adapters.notify.outbox import Say, outbox_folder, read_targets
from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.dataclass import dataclass
from orchestrator.parsing.inputs.nights.notify_file import NotifyTarget

ATTEMPTS = 4
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
        for target in wanted:
            if target.name not in sent and self._try_target(notice, target):
                sent.append(target.name)
                write_json(path, {**asdict(notice), "sent": sent})
        done = all(target.name in sent for target in wanted)
        if done or time.time() - path.stat().st_mtime > MAX_AGE_S:
            path.unlink(missing_ok=True)
        return done

    def _try_target(self, notice: Notice, target: NotifyTarget) -> bool:
        for attempt in range(ATTEMPTS):
            try:
                deliver(notice, target, self.environ)
                return True
            except NotDelivered as error:
                self.say(f"{target.name}: attempt {attempt + 1} of {ATTEMPTS}: {error.what}")
            if attempt < ATTEMPTS - 1:
                self.sleep(FIRST_WAIT_S * 2**attempt)
        return False
