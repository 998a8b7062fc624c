"""Fabrics that proved good: one small file per set of nodes and settings, for a day."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.cache.json_cache import JsonCache

KEPT_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """``busbw_gbps`` as it was measured, ``at`` (the wall clock in seconds); None = it was not."""

    at: float
    busbw_gbps: float | None
    note: str


class ProvenFabrics:
    """The entries of one folder. What cannot be read or written is not there."""

    def __init__(self, folder: Path) -> None:
        self._cache = JsonCache(folder)

    def find(self, ground: Mapping[str, Any], now: float) -> Proven | None:
        """What was kept for exactly this ``ground``, if it is young enough."""
        kept = self._cache.find(ground)
        try:
            at, busbw, note = kept["at"], kept["busbw_gbps"], str(kept["note"])
            young = 0 <= now - at <= KEPT_S
            measured = busbw is None or (math.isfinite(busbw) and busbw > 0)
        except (KeyError, TypeError):
            return None
        return Proven(at=at, busbw_gbps=busbw, note=note) if young and measured else None

    def keep(self, ground: Mapping[str, Any], proven: Proven) -> None:
        """Remember it."""
        entry = {"at": proven.at, "busbw_gbps": proven.busbw_gbps, "note": proven.note}
        self._cache.keep(ground, entry)
