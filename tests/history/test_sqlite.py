"""The history in SQLite: what is written is found again; older files migrate, others do not."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.history.database import HistoryUnavailable
from orchestrator.adapters.history.open_store import open_history, sqlite_history
from orchestrator.adapters.history.schema import VERSION
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.report.result_json import to_object
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.run_record import RunQuery
from orchestrator.core.verdict.result import Status
from tests.history.made_runs import KEY, make_entry

FIRST_SCHEMA = """
CREATE TABLE run (
    run_id TEXT PRIMARY KEY, started REAL NOT NULL, finished REAL NOT NULL, cluster TEXT NOT NULL,
    workload TEXT NOT NULL, preset TEXT, status TEXT NOT NULL, code TEXT NOT NULL,
    result TEXT NOT NULL
) STRICT;
CREATE INDEX run_of_workload ON run (workload, cluster, finished);
PRAGMA user_version = 1;
"""


@pytest.fixture
def store(tmp_path: Path) -> HistoryStore:
    return sqlite_history(tmp_path / "home" / "history.sqlite")


def test_an_empty_history_has_nothing(store: HistoryStore) -> None:
    """Reading creates no file."""
    assert store.read_runs(RunQuery()) == ()
    assert store.read_series(KEY, "speed", 10).points == ()
    assert store.find_runs("x") == ()
    assert store.read_result("x") is None
    assert not Path(store.where).exists()


def test_a_run_is_found_again_as_it_was(store: HistoryStore) -> None:
    """Record, result and curves; recording again replaces."""
    entry = make_entry("r1", 5.0, speed=100.0, loss=None)
    store.record_run(make_entry("r1", 4.0, speed=1.0, other=2.0))
    store.record_run(entry)
    assert store.read_runs(RunQuery()) == (entry.record,)
    assert store.read_result("r1") == entry.result
    assert store.read_curves("r1") == entry.curves


def test_runs_are_selected(store: HistoryStore) -> None:
    """By workload, cluster, metric, time and key, newest first."""
    other = replace(KEY, workload="sleep")
    for number in range(4):
        store.record_run(make_entry(f"a{number}", float(number), speed=1.0))
    store.record_run(make_entry("b", 9.0, key=other, cluster="d"))

    def ids(**query: object) -> list[str]:
        return [run.run_id for run in store.read_runs(RunQuery(**query))]  # type: ignore[arg-type]

    assert ids(limit=2) == ["b", "a3"]
    assert ids(workload="finetune", since=2.0) == ["a3", "a2"]
    assert ids(before=2.0) == ["a1", "a0"]
    assert ids(cluster="d") == ["b"]
    assert ids(metric="speed", limit=1) == ["a3"]
    assert ids(key_digest=other.digest) == ["b"]
    assert ids(workload="'; DROP TABLE run; --") == []


def test_a_series_is_of_one_key_and_says_what_is_missing(store: HistoryStore) -> None:
    """Oldest first; a run without the figure stays in it."""
    store.record_run(make_entry("a", 1.0, speed=1.0))
    store.record_run(make_entry("b", 2.0, step=1.0))
    store.record_run(make_entry("c", 3.0, speed=3.0, status=Status.FAILED))
    store.record_run(make_entry("d", 4.0, speed=9.0, key=replace(KEY, driver="999")))
    series = store.read_series(KEY, "speed", 10)
    assert [(p.run_id, p.value) for p in series.points] == [("a", 1.0), ("b", None), ("c", 3.0)]
    assert series.values == (1.0,)
    assert (series.unit, series.direction.value) == ("tok/s", "higher")


def test_ids_are_found_by_their_beginning(store: HistoryStore) -> None:
    """An exact id wins over those that begin with it."""
    for run_id in ("r1", "r10", "r2", "%"):
        store.record_run(make_entry(run_id))
    assert [run.run_id for run in store.find_runs("r1")] == ["r1"]
    assert len(store.find_runs("r")) == 2
    assert [run.run_id for run in store.find_runs("%")] == ["%"]


def test_removed_runs_are_gone_with_their_figures(store: HistoryStore) -> None:
    store.record_run(make_entry("a", speed=1.0))
    store.record_run(make_entry("b", speed=1.0))
    store.remove_runs(["a", "unknown"])
    assert [run.run_id for run in store.read_runs(RunQuery())] == ["b"]
    with sqlite3.connect(store.where) as connection:
        assert connection.execute("SELECT count(*) FROM figure").fetchone() == (1,)
    connection.close()


def test_a_file_of_the_first_version_migrates(store: HistoryStore) -> None:
    """Its runs keep results and figures; what their key was is unknown."""
    path = Path(store.where)
    path.parent.mkdir()
    result = make_entry("old", speed=7.0).result
    row = ("old", 1.0, 2.0, "c", "finetune", None, "succeeded", "d", json.dumps(to_object(result)))
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_SCHEMA)
        connection.execute("INSERT INTO run VALUES (?,?,?,?,?,?,?,?,?)", row)
    connection.close()
    (run,) = store.read_runs(RunQuery())
    assert (run.run_id, run.started, run.finished, run.figures["speed"].value) == (
        "old",
        1.0,
        2.0,
        7.0,
    )
    assert (run.key.nodes, run.key.gpus) == ("gpu01", "")
    assert store.read_result("old") == result
    store.record_run(make_entry("new", 3.0))
    assert len(store.read_runs(RunQuery())) == 2


def test_a_newer_file_is_refused_and_left_alone(store: HistoryStore) -> None:
    path = Path(store.where)
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=f"version {VERSION + 1}"):
        store.read_runs(RunQuery())
    with pytest.raises(UsageError, match=f"version {VERSION + 1}"):
        store.record_run(make_entry("a"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", ["not a database", "torn"])
def test_a_damaged_file_is_refused_and_left_alone(store: HistoryStore, cut: str) -> None:
    """Exit 2 with a remedy; never reset."""
    path = Path(store.where)
    path.parent.mkdir()
    for number in range(50):
        store.record_run(make_entry(f"r{number}", speed=1.0))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = path.read_bytes()
    path.write_bytes(b"not a database" * 999 if cut != "torn" else content[:4096] + b"\xff" * 8192)
    damaged = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        store.read_runs(RunQuery())
    assert (caught.value.exit_code, caught.value.id) == (2, "OR-STORE-013")
    assert "history import" in caught.value.remedy
    assert path.read_bytes() == damaged


def test_another_url_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without repeating it: it may hold a password."""
    monkeypatch.setenv("ORCHESTRATE_HISTORY", "mysql://u:secret@h/d")
    with pytest.raises(UsageError) as caught:
        open_history(Layout(home))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", ["sqlite:///", "sqlite:////"])
def test_a_folder_is_no_history(home: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ORCHESTRATE_HISTORY", given)
    with pytest.raises(UsageError, match="names a folder"):
        open_history(Layout(home))


def test_a_copy_on_a_read_only_disk_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite could not make the files there that its readers share."""
    path = home / "history.sqlite"
    sqlite_history(path).record_run(make_entry("a", speed=1.0))
    before = sorted(home.iterdir())
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert [run.run_id for run in sqlite_history(path).read_runs(RunQuery())] == ["a"]
    assert sorted(home.iterdir()) == before
    with pytest.raises(HistoryUnavailable, match="readonly"):
        sqlite_history(path).record_run(make_entry("b", speed=1.0))
