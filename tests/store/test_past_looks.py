"""Examinations on disk: what was added is read, by one command or several."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.adapters.store import past_looks
from orchestrator.adapters.store.past_looks import KEPT_S, PastLooks
from orchestrator.core.doctor.check_model import PastLook
from orchestrator.core.model.facts import Xid

NOW = 1_800_000_000.0


def look(at: float, node: str = "n1") -> PastLook:
    xids = (Xid(code=79, pci="0000:33:00", count=1, in_a_day=1),)
    return PastLook(
        at=at, node=node, address="u@h", boot_id="b", failed=("OR-DOC-GPU-005",), xids=xids
    )


def test_what_was_kept_is_read_by_cluster(tmp_path: Path) -> None:
    looks = [look(NOW), look(NOW + 1, "n2")]
    assert PastLooks(tmp_path, "lab").read() == ()
    PastLooks(tmp_path, "lab").add(looks[:1], NOW)
    PastLooks(tmp_path, "lab").add(looks[1:], NOW)
    assert PastLooks(tmp_path, "lab").read() == tuple(looks)
    assert PastLooks(tmp_path, "../lab").read() == ()


def test_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    def add(number: int) -> None:
        PastLooks(tmp_path, "lab").add([look(NOW + number)], NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    kept = PastLooks(tmp_path, "lab").read()
    assert kept is not None
    assert {one.at - NOW for one in kept} == set(range(40))


def test_a_long_record_forgets_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = PastLooks(tmp_path, "lab")
    record.add([look(NOW - KEPT_S - 1), look(NOW - 2), look(NOW - 1)], NOW)
    monkeypatch.setattr(past_looks, "MAX_BYTES", 900)
    record.add([look(NOW)], NOW)
    assert record.read() == (look(NOW - 1), look(NOW)), "the younger half of a month"


@pytest.mark.parametrize("damage", [b"not json\n", b"{}\n", b"[" * 5000 + b"\n", b"\xff\n"])
def test_a_line_that_was_cut_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    record = PastLooks(tmp_path, "lab")
    record.add([look(NOW)], NOW)
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(damage)
    record.add([look(NOW + 1)], NOW)
    assert record.read() == (look(NOW), look(NOW + 1))


def test_a_record_that_may_not_be_read_is_unknown(tmp_path: Path) -> None:
    record = PastLooks(tmp_path, "lab")
    record.add([look(NOW)], NOW)
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()  # root may read any file
    assert record.read() is None
