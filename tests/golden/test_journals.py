"""Journals of every released version lead to the same actions and the same verdict for ever.

Each folder holds the request, the journal, and what followed. A new version adds a folder; nobody
changes an old one, because runs that it wrote are on people's disks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.base.codec import from_json, to_json
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.events import Event
from orchestrator.core.run.machine import action_identity, step
from orchestrator.core.run.state import new_state
from orchestrator.core.verdict.verdict import conclude_run

JOURNALS = sorted(path for path in (Path(__file__).parent / "journals").iterdir() if path.is_dir())


def replayed(folder: Path) -> dict[str, Any]:
    """What the present machine makes of the journal in ``folder``."""
    request = from_json(RunRequest, json.loads((folder / "request.json").read_text()))
    state = new_state(request)
    performed: list[str] = []
    for line in (folder / "journal.jsonl").read_text().splitlines():
        state, actions = step(state, from_json(Event, json.loads(line)["event"]))
        performed += [
            f"{state.attempt}.{state.epoch} {action_identity(action)}" for action in actions
        ]
    result = to_json(conclude_run(state, timings={}, report="report.html"))
    return {"performed": performed, "result": result}


def test_there_are_journals_to_replay() -> None:
    assert {path.name for path in JOURNALS} >= {"0.1-healthy", "0.1-takeover", "0.1-attempts"}


@pytest.mark.parametrize("folder", JOURNALS, ids=lambda path: path.name)
def test_an_old_journal_leads_where_it_led(folder: Path) -> None:
    """The same actions in the same order, and every key of the old verdict as it was."""
    expected = json.loads((folder / "expected.json").read_text())
    found = replayed(folder)
    assert found["performed"] == expected["performed"]
    assert list(_lost(expected["result"], found["result"])) == []


def _lost(old: Any, new: Any, path: str = "result") -> Iterator[str]:
    """Where ``new`` does not say what ``old`` said. It may say more."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            yield from _lost(value, new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _lost(*pair, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: {old!r} became {new!r}"
