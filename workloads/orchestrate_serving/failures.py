"""Failures of inference servers by the ids that workload.yaml declares, and a rank's last words."""

from __future__ import annotations

import sys
from typing import NoReturn

UNREACHABLE = "OR-SERVE-001"
NO_API = "OR-SERVE-002"
OTHER_MODEL = "OR-SERVE-003"
NOT_STARTED = "OR-SERVE-004"
ENDED = "OR-SERVE-005"
LEFT_OVER = "OR-SERVE-006"


class ServingError(RuntimeError):
    """``id``: one of those above, or of the workload's own; empty = it has none."""

    def __init__(self, what: str, id: str = "") -> None:
        super().__init__(what)
        self.id = id


def leave(program: str, code: int, error: Exception) -> NoReturn:
    """Say what an engine wrote last, then what happened, under its id: a run's result quotes the
    last line, and names the failure by the id in it.
    """
    what, *quoted = str(error).splitlines() or [""]
    name = getattr(error, "id", "") or program
    for line in (*quoted, f"{name}: {what.removesuffix(':')}"):
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)
