"""MLflow's local store for `scripts/bench history`: fills it, and asks it what ours is asked.

Started with the interpreter of MLflow's own environment. The tables are made by MLflow; their rows
are written by SQL, because its interface takes hours for that many.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH = 500


def main() -> None:
    """``fill FILE RUNS FIGURES KEYS`` or ``history|compare|trend FILE RUN``."""
    question, file, *rest = sys.argv[1:]
    if question == "fill":
        fill(Path(file), *map(int, rest))
        return
    started = time.perf_counter()
    from mlflow import MlflowClient

    imported = time.perf_counter()
    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    answer = ANSWERS[question](client, rest[0])
    done = time.perf_counter()
    print(json.dumps({"answer": answer, "import_s": imported - started, "ask_s": done - imported}))


def fill(file: Path, runs: int, figures: int, keys: int) -> None:
    """``runs`` runs of ``keys`` kinds, with ``figures`` figures each."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    experiment = client.create_experiment("runs")
    first = client.create_run(experiment, run_name="model", tags={"key": "model"})
    client.log_metric(first.info.run_id, "model", 1.0)
    client.set_terminated(first.info.run_id)
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        model = _row(connection, "runs", f"run_uuid = '{first.info.run_id}'")
        for start in range(0, runs, BATCH):
            numbers = range(start, min(start + BATCH, runs))
            _insert(connection, "runs", [_run(model, number) for number in numbers])
            tags = [{"run_uuid": _id(n), "key": "key", "value": f"k{n % keys}"} for n in numbers]
            _insert(connection, "tags", tags)
            _insert(connection, "metrics", list(_metrics(numbers, figures)))
            _insert(connection, "latest_metrics", list(_metrics(numbers, figures)))
    connection.close()


def _id(number: int) -> str:
    return f"{number:032x}"


def _run(model: dict[str, Any], number: int) -> dict[str, Any]:
    at = 1_700_000_000_000 + number * 60_000
    own = {"run_uuid": _id(number), "name": f"run-{number}", "start_time": at, "end_time": at + 1}
    return {**model, **own}


def _metrics(numbers: range, figures: int) -> Iterator[dict[str, Any]]:
    for number in numbers:
        at = 1_700_000_000_000 + number * 60_000
        for index in range(figures):
            yield {
                "run_uuid": _id(number),
                "key": f"figure{index}",
                "value": 100 + (number * 7919 + index * 104_729) % 1000 / 500,
                "timestamp": at,
                "step": 0,
                "is_nan": 0,
            }


def _row(connection: sqlite3.Connection, table: str, condition: str) -> dict[str, Any]:
    cursor = connection.execute(f"SELECT * FROM {table} WHERE {condition}")  # noqa: S608 - ours
    names = [column[0] for column in cursor.description]
    return dict(zip(names, cursor.fetchone(), strict=True))


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    marks = ", ".join(f":{name}" for name in names)
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 - ours
    connection.executemany(statement, rows)


def _history(client: Any, run: str) -> int:
    """The latest 20 runs of a kind with their figures."""
    return len(_search(client, f"tags.key = '{run}'", 20))


def _compare(client: Any, run: str) -> int:
    """A run, and the figures of the latest 61 of its kind: ten to compare with, 50 for noise."""
    own = client.get_run(run)
    key = own.data.tags["key"]
    return len(_search(client, f"tags.key = '{key}'", 61))


def _trend(client: Any, run: str) -> int:
    """One figure over the latest 200 runs of a kind."""
    found = _search(client, f"tags.key = '{run}'", 200)
    return len([one.data.metrics["figure0"] for one in found])


def _search(client: Any, condition: str, count: int) -> list[Any]:
    experiment = client.get_experiment_by_name("runs").experiment_id
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([experiment], condition, max_results=count, order_by=order))


ANSWERS = {"history": _history, "compare": _compare, "trend": _trend}

if __name__ == "__main__":
    main()
