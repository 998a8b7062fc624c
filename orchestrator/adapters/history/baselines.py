"""Baselines: named copies of runs that later runs are compared with. They outlive their runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.history.stored_run import record_from_mapping, record_to_mapping
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.run_record import RunRecord

FORMAT = "orchestrate-baseline-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """``set_at`` in seconds since the epoch; ``runs`` is never empty."""

    name: str
    set_at: float
    runs: tuple[RunRecord, ...]


def save_baseline(store: HistoryStore, baseline: Baseline) -> None:
    """Set it, replacing one of the same name."""
    store.write_baseline(baseline.name, baseline.set_at, baseline_to_mapping(baseline))


def load_baselines(store: HistoryStore) -> dict[str, Baseline]:
    """All of them, by name. Raises :class:`UsageError` for one that is damaged."""
    found = {}
    for name, content in store.read_baselines().items():
        try:
            found[name] = _from_mapping(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"baseline {name} is damaged",
                id="OR-STORE-004",
                where=store.where,
                why=repr(error),
                remedy=f"orchestrate baseline remove {name}, then set or import it again",
            ) from error
    return found


def remove_baseline(store: HistoryStore, name: str) -> None:
    """Forget it; its runs stay as long as retention lets them."""
    store.delete_baseline(name)


def baseline_to_mapping(baseline: Baseline) -> dict[str, Any]:
    """As it is stored and exported."""
    return {
        "format": FORMAT,
        "name": baseline.name,
        "set_at": baseline.set_at,
        "runs": [record_to_mapping(run) for run in baseline.runs],
    }


def render_baseline(baseline: Baseline) -> str:
    """The file that ``baseline export`` writes."""
    return json.dumps(baseline_to_mapping(baseline), indent=2, allow_nan=False) + "\n"


def _from_mapping(content: dict[str, Any]) -> Baseline:
    return Baseline(
        name=content["name"],
        set_at=content["set_at"],
        runs=tuple(map(record_from_mapping, content["runs"])),
    )
