"""Fabrics that proved good: one small file per set of nodes and settings, for a day."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.store.atomic_files import make_private_dir, write_json

KEPT_S = 86_400.0
MOST = 64
MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """``busbw_gbps`` as it was measured, ``at`` (the wall clock in seconds); None = it was not."""

    at: float
    busbw_gbps: float | None
    note: str


class ProvenFabrics:
    """The entries of one folder. What cannot be read or written is not there: nothing raises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, ground: Mapping[str, Any], now: float) -> Proven | None:
        """What was kept for exactly this ``ground``, if it is young enough."""
        path = self._path(ground)
        try:
            with path.open("rb") as file:
                kept = json.loads(file.read(MAX_BYTES))
            at, busbw, note = kept["at"], kept["busbw_gbps"], str(kept["note"])
            young = 0 <= now - at <= KEPT_S
            measured = busbw is None or (math.isfinite(busbw) and busbw > 0)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return Proven(at=at, busbw_gbps=busbw, note=note) if young and measured else None

    def keep(self, ground: Mapping[str, Any], proven: Proven) -> None:
        """Remember it, and forget the oldest of too many."""
        entry = {"at": proven.at, "busbw_gbps": proven.busbw_gbps, "note": proven.note}
        with suppress(OSError):
            make_private_dir(self._folder)
            write_json(self._path(ground), {**entry, "ground": ground})
            files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[:-MOST]:
                path.unlink(missing_ok=True)

    def _path(self, ground: Mapping[str, Any]) -> Path:
        text = json.dumps(ground, sort_keys=True, ensure_ascii=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
