"""What a rank says of its collectives: the capture of NVLink compares it with what it counted."""

from __future__ import annotations

import atexit
import os
import time

from ._reports import output_dir, rank_in_run, replace_json, world_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Tuple

WANTED = "ORCHESTRATE_CAPTURES"  # names with commas
EVERY_S = 5.0  # between two writings of the file
MAX_KINDS = 1000  # of operation, size and ranks
OPERATIONS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast")


class Account:
    """Counts by operation, bytes and ranks; one file of the node's first rank."""

    def __init__(self) -> None:
        self._counts: Dict[Tuple[str, int, int], int] = {}
        self._written = 0.0

    def add(self, key: Tuple[str, int, int], count: int) -> None:
        if not self._counts:
            atexit.register(self.write)
        if key in self._counts or len(self._counts) < MAX_KINDS:
            self._counts[key] = self._counts.get(key, 0) + count
        if time.monotonic() - self._written >= EVERY_S:
            self.write()

    def write(self) -> None:
        folder = output_dir() / "captures"
        path = folder / ("collectives-%d.json" % rank_in_run())
        names = ("op", "bytes", "ranks", "count")
        rows = [dict(zip(names, (*key, count))) for key, count in self._counts.items()]
        try:
            folder.mkdir(exist_ok=True)
            replace_json(path, rows)
        except OSError:
            return  # a full disk costs the comparison, not the job
        self._written = time.monotonic()


_account = Account()


def collective(op: str, size: int, count: int = 1, ranks: Optional[int] = None) -> None:
    """This rank took part in ``count`` times ``op`` (:data:`OPERATIONS`) on ``size`` bytes, the
    whole message as nccl-tests counts it, among ``ranks`` (of the world, unless fewer).

    Costs nothing unless the run captures NVLink. Raises ``ValueError`` for another operation, or
    for numbers below zero.
    """
    if op not in OPERATIONS or size < 0 or count < 0:
        raise ValueError("not a collective: %r of %r bytes, %r times" % (op, size, count))
    wanted = "nvlink" in os.environ.get(WANTED, "").split(",")
    if wanted and os.environ.get("LOCAL_RANK", "0") == "0":
        _account.add((op, int(size), world_size() if ranks is None else ranks), count)
