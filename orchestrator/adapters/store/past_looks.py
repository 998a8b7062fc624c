"""What ``doctor`` found of each node: lines of JSON, one file a cluster.

Nothing in it is needed for a run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.adapters.record_log import read_log
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.core.base.codec import from_json, to_json
from orchestrator.core.doctor.check_model import PastLook

KEPT_S = 31 * 86_400.0
MAX_BYTES = 4 << 20


class PastLooks:
    """The examinations of one cluster, by its name and where its inventory lies."""

    def __init__(self, folder: Path, cluster: str) -> None:
        self._folder = folder
        self._path = folder / f"{hashlib.sha256(cluster.encode()).hexdigest()[:32]}.jsonl"

    def read(self) -> tuple[PastLook, ...] | None:
        """The oldest first; None = they cannot be read."""
        try:
            return tuple(read_log(self._path, _parse_look))
        except OSError:
            return None

    def add(self, looks: Iterable[PastLook], now: float) -> None:
        """Append: two commands at once lose nothing of each other. Of a long file what is older
        than a month goes, and in any case the older half. Raises ``OSError``.
        """
        make_private_dir(self._folder)
        with self._path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b"".join(map(_line, looks)))
            if file.tell() > MAX_BYTES:
                file.flush()
                young = [_line(one) for one in self.read() or () if now - one.at <= KEPT_S]
                file.truncate(0)
                file.write(b"".join(young[len(young) // 2 :]))


def _parse_look(data: dict[str, Any]) -> PastLook:
    """Raises what ``read_log`` leaves out: what another version wrote."""
    look = from_json(PastLook, data)
    assert isinstance(look, PastLook)
    return look


def _line(look: PastLook) -> bytes:
    return json.dumps(to_json(look)).encode() + b"\n"
