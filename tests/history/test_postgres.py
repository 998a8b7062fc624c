"""The history in a real PostgreSQL server: the same answers as in SQLite, and no secret shown."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.history.database import HistoryUnavailable
from orchestrator.adapters.history.open_store import open_history, sqlite_history
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.main import main
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.history.run_record import RunQuery
from tests.history.made_runs import KEY, make_entry
from tests.history.postgres_server import find_programs, postgres_server

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
pytest.importorskip("psycopg", reason="psycopg is not installed")
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """In a folder right below the temporary one: its user may not enter those of pytest."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-pg-") as folder,
        postgres_server(Path(folder), programs) as url,
    ):
        yield url


@pytest.fixture
def store(server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> HistoryStore:
    """An empty history in the server."""
    from sqlalchemy import create_engine, text

    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    monkeypatch.setenv("ORCHESTRATE_HISTORY", server)
    return open_history(Layout(home))


def test_it_answers_as_sqlite_does(store: HistoryStore, tmp_path: Path) -> None:
    other = sqlite_history(tmp_path / "other" / "history.sqlite")
    for each in (store, other):
        for number in range(5):
            each.record_run(make_entry(f"a{number}", float(number), speed=number + 1.0, loss=None))
        each.record_run(make_entry("a1", 9.0, speed=7.5))
        each.record_run(make_entry("b", 3.0, key=replace(KEY, driver="9"), cluster="d"))
        each.remove_runs(["a4"])
    queries = [
        RunQuery(),
        RunQuery(limit=2),
        RunQuery(metric="loss", since=1.0),
        RunQuery(cluster="d", workload="finetune", before=99.0),
        RunQuery(key_digest=KEY.digest),
    ]
    for query in queries:
        assert store.read_runs(query) == other.read_runs(query)
    assert store.read_series(KEY, "loss", 3) == other.read_series(KEY, "loss", 3)
    assert store.find_runs("a") == other.find_runs("a")
    assert store.read_result("a1") == other.read_result("a1")
    assert store.read_curves("a1") == other.read_curves("a1")
    assert store.read_result("a4") is None


def test_writers_at_once_lose_nothing(store: HistoryStore) -> None:
    """Into a database without tables: one of them makes them."""
    failed: list[OrchestrateError] = []

    def write(name: str) -> None:
        try:
            for number in range(10):
                figures = {f"{name}{n}": 1.0 for n in range(5)} | {"speed": 1.0}
                store.record_run(make_entry(f"{name}{number}", **figures))
        except OrchestrateError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(error) for error in failed] == []
    assert len(store.read_runs(RunQuery())) == 40


def test_commands_use_it(store: HistoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.record_run(make_entry("a", 1.0, speed=100.0))
    store.record_run(make_entry("b", 2.0, speed=90.0))
    assert main(["history"]) == 0
    assert main(["baseline", "set", "a", "--name", "x"]) == 0
    assert main(["compare", "x", "b", "--gate"]) == 5
    assert "90 tok/s" in capsys.readouterr().out


def test_a_newer_schema_is_refused(store: HistoryStore, server: str) -> None:
    from sqlalchemy import create_engine, text

    store.record_run(make_entry("a"))
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE history_version SET version = 99"))
    engine.dispose()
    with pytest.raises(UsageError, match="99"):
        store.read_runs(RunQuery())


def test_a_table_that_others_hold_is_waited_for_briefly(
    store: HistoryStore, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's end waits for it."""
    import psycopg

    from orchestrator.adapters.history import postgres_database

    store.record_run(make_entry("a"))
    monkeypatch.setattr(postgres_database, "LOCK_MS", 200)
    with psycopg.connect(server) as other:
        other.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(HistoryUnavailable, match="lock timeout") as caught:
            open_history(Layout(Path("/nowhere"))).record_run(make_entry("b"))
        other.rollback()

    assert "pg_stat_activity" in caught.value.remedy
    assert {run.run_id for run in store.read_runs(RunQuery())} == {"a"}


def test_an_account_that_may_not_write_reads(
    store: HistoryStore, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record_run(make_entry("a"))
    read_only = f"{server}&options=-c%20default_transaction_read_only%3Don"
    monkeypatch.setenv("ORCHESTRATE_HISTORY", read_only)
    reader = open_history(Layout(Path("/nowhere")))

    assert [run.run_id for run in reader.read_runs(RunQuery())] == ["a"]
    with pytest.raises(HistoryUnavailable, match="read-only") as caught:
        reader.record_run(make_entry("b"))
    assert "may write" in caught.value.remedy


def test_a_password_is_never_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in what names the store, nor in the errors of a server that is not there."""
    monkeypatch.setenv(
        "ORCHESTRATE_HISTORY", "postgresql://u:sesame@127.0.0.1:9/d?password=sesame&sslkey=sesame"
    )
    store = open_history(Layout(home))
    with pytest.raises(OrchestrateError) as caught:
        store.read_runs(RunQuery())
    assert "sesame" not in f"{caught.value}{caught.value.__cause__}{store.where}"
