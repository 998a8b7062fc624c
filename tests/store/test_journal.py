"""The journal keeps every acknowledged entry, and only those, across torn writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store.journal import Journal, JournalDamaged, JournalReader


def _fill(path: Path, count: int) -> None:
    with Journal(path) as journal:
        for number in range(count):
            journal.append(float(number), {"type": "Connected", "node": f"n{number}"})


def _nodes(path: Path) -> list[str]:
    return [entry.event["node"] for entry in JournalReader(path).read_all()]


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    """What was appended is read again with its numbers and times."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        assert journal.append(1.5, {"type": "Begun"}) == 0
        assert journal.append_many([(2.0, {"x": "a\nb\u2028"}), (3.0, {})]) == range(1, 3)
        assert journal.append_many([]) == range(3, 3)
    entries = list(JournalReader(path).read_all())
    assert [(e.seq, e.t) for e in entries] == [(0, 1.5), (1, 2.0), (2, 3.0)]
    assert entries[1].event == {"x": "a\nb\u2028"}
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=0, max_value=400), junk=st.binary(max_size=20))
def test_any_torn_tail_is_dropped_and_overwritten(tmp_path: Path, cut: int, junk: bytes) -> None:
    """Cutting the file anywhere loses at most the entries from the cut on, and writing goes on."""
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    _fill(path, 5)
    whole = path.read_bytes()
    kept = whole[: min(cut, len(whole))]
    path.write_bytes(kept + junk.replace(b"\n", b""))
    complete = kept.count(b"\n")
    assert _nodes(path) == [f"n{n}" for n in range(complete)]
    with Journal(path) as journal:
        assert journal.append(9.0, {"type": "Connected", "node": "new"}) == complete
    assert _nodes(path) == [*(f"n{n}" for n in range(complete)), "new"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], b"{torn\n", lines[2]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], b"\n", *lines[1:]],
        lambda lines: [*lines, b"[1, 2]\n"],
        lambda lines: [lines[0], lines[1][:-5] + lines[2]],
    ],
    ids=["garbage", "gap", "blank", "wrong-type", "torn-in-the-middle"],
)
def test_damage_before_the_end_is_an_error(tmp_path: Path, damage: object) -> None:
    """A bad line before others, a gap in the numbers, a complete line of nonsense: an error."""
    path = tmp_path / "journal.jsonl"
    _fill(path, 3)
    assert callable(damage)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(JournalDamaged):
        list(JournalReader(path).read_all())
    with pytest.raises(JournalDamaged):
        Journal(path)


def test_a_follower_sees_each_entry_once(tmp_path: Path) -> None:
    """Reading while somebody writes, even half a line at a time, gives each entry exactly once."""
    source, path = tmp_path / "source.jsonl", tmp_path / "journal.jsonl"
    _fill(source, 4)
    reader = JournalReader(path)
    assert reader.read() == []
    seen: list[int] = []
    content = source.read_bytes()
    with path.open("ab", buffering=0) as file:
        for start in range(0, len(content), 7):
            file.write(content[start : start + 7])
            seen += [entry.seq for entry in reader.read()]
    assert seen == [0, 1, 2, 3]


def test_a_reader_resumes_at_a_cursor(tmp_path: Path) -> None:
    """Offset and number of one reader continue in another one."""
    path = tmp_path / "journal.jsonl"
    _fill(path, 2)
    first = JournalReader(path)
    assert len(first.read()) == 2
    with Journal(path) as journal:
        journal.append(5.0, {"type": "Begun"})
    resumed = JournalReader(path, offset=first.offset, seq=first.seq)
    assert [entry.seq for entry in resumed.read()] == [2]


def test_a_failed_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills in the middle of a block, nothing of the block stays."""
    path = tmp_path / "journal.jsonl"
    write = os.write
    with Journal(path) as journal:
        journal.append(0.0, {"type": "Begun"})

        def half(fd: int, block: memoryview) -> int:
            if len(block) <= 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, block[: len(block) - 20])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space"):
                journal.append(1.0, {"type": "Connected", "node": "lost"})
        assert journal.append(2.0, {"type": "Connected", "node": "kept"}) == 1
    assert [e.event.get("node") for e in JournalReader(path).read_all()] == [None, "kept"]


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    """NaN is not JSON: refused before anything is written."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal, pytest.raises(ValueError, match="JSON"):
        journal.append(float("nan"), {})
    assert path.read_bytes() == b""
