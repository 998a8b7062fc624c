"""What journals, plans and results on people's disks call things never changes its meaning."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.core.base.wire_names import wire_name
from orchestrator.core.doctor.check_model import PastLook
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.actions import Action
from orchestrator.core.run.events import Event
from orchestrator.core.verdict.result import Result

WRITTEN = (Event, Action, RunRequest, Plan, Result, PastLook)
KNOWN = Path(__file__).parent / "wire_names.txt"


def written() -> dict[type, str | None]:
    """Every dataclass that can occur in what is written, with its wire name."""
    found: dict[type, str | None] = {}
    for root in WRITTEN:
        _visit(root, found)
    return found


def _visit(wanted: Any, found: dict[type, str | None]) -> None:
    for part in _parts(wanted, found):
        _visit(part, found)


def _parts(wanted: Any, found: dict[type, str | None]) -> Iterator[Any]:
    if not (isinstance(wanted, type) and dataclasses.is_dataclass(wanted)):
        yield from typing.get_args(wanted)
    elif wanted not in found:
        found[wanted] = wire_name(wanted)
        yield from typing.get_type_hints(wanted).values()


def test_everything_written_has_a_name_of_its_own() -> None:
    names = list(written().values())

    assert [cls.__qualname__ for cls, name in written().items() if not name] == []
    assert len(names) == len(set(names))


def test_names_are_only_ever_added() -> None:
    """A name that is missing here breaks files that exist; a new one is added to the list."""
    assert sorted(map(str, written().values())) == KNOWN.read_text().split()
